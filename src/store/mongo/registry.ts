import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../keys/ports/clock.ts';
import type { MongoDatabase } from './database.ts';
import { guarded, inTime, type Limits } from './errors.ts';

const PREFIX = 'process:';
/** A process whose counter has not changed for so many of its leases is gone. */
const GONE_LEASES = 10;
/** A holder's clock may run a fifth slower than this one. */
const DRIFT = 1.2;
const MARGIN_MS = 20;

interface Seen {
  readonly counter: number;
  readonly since: number;
}

/** The processes that cache records, with the length of their leases: a change must wait for them. */
export class Registry {
  readonly #database: MongoDatabase;
  readonly #processId: string;
  readonly #leaseMs: number;
  readonly #caches: boolean;
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #waited: (ms: number) => void;
  /** The counters of other processes, and since when each is unchanged by this process's monotonic clock. */
  #seen = new Map<string, Seen>();
  #reaped = Number.NEGATIVE_INFINITY;
  /** By the monotonic clock, when the last lease that this process lent to a guard is over. */
  #lentUntil = Number.NEGATIVE_INFINITY;

  /**
   * @param caches a process that caches no records needs no entry
   * @param waited called with the time that a change waits for the leases of other processes
   */
  constructor(
    database: MongoDatabase,
    processId: string,
    leaseMs: number,
    caches: boolean,
    clock: Pick<Clock, 'monotonic'>,
    waited: (ms: number) => void = () => {},
  ) {
    this.#clock = clock;
    this.#waited = waited;
    this.#database = database;
    this.#processId = processId;
    this.#leaseMs = leaseMs;
    this.#caches = caches;
  }

  async renew(limits: Limits): Promise<void> {
    if (!this.#caches) return;
    const update = { $inc: { counter: 1 }, $set: { lease_ms: this.#leaseMs } };
    const filter = { _id: PREFIX + this.#processId };
    await this.#database.meta.updateOne(filter, update, { upsert: true, ...limits });
  }

  /** The longest lease of another process in ms; 0 when there is no other process. */
  async longestLeaseOfOthers(limits: Limits): Promise<number> {
    const others = await this.#others(limits);
    return Math.max(0, ...others.map(({ lease_ms }) => lease_ms ?? 0));
  }

  /** The ids of the registered processes, this one included. */
  async processes(limits: Limits): Promise<ReadonlySet<string>> {
    const others = await this.#others(limits);
    return new Set([this.#processId, ...others.map(({ _id }) => _id.slice(PREFIX.length))]);
  }

  /** Removes entries whose counter has not changed; never compares the clocks of two machines. */
  async reap(now: number): Promise<void> {
    if (now - this.#reaped < this.#leaseMs) return;
    this.#reaped = now;
    const seen = new Map<string, Seen>();
    for (const { _id, counter = 0, lease_ms = 0 } of await inTime((limits) => this.#others(limits))) {
      const before = this.#seen.get(_id);
      const since = before?.counter === counter ? before.since : now;
      seen.set(_id, { counter, since });
      if (now - since > GONE_LEASES * lease_ms)
        await inTime((limits) => this.#database.meta.deleteOne({ _id, counter }, { ...limits }));
    }
    this.#seen = seen;
  }

  /** A process that is not registered may not lend a lease, since no other would wait for it. */
  get lends(): boolean {
    return this.#caches;
  }

  /** This process has lent a lease to a guard. */
  lent(leaseMs: number): void {
    this.#lentUntil = Math.max(this.#lentUntil, this.#clock.monotonic() + leaseMs * DRIFT + MARGIN_MS);
  }

  /**
   * After a change that must hold everywhere: waits until no other process may still use an older record, nor a guard.
   * @param local guards may know the key
   */
  async waitForOthers(local: boolean): Promise<void> {
    const othersMs = await guarded((limits) => this.longestLeaseOfOthers(limits));
    // Also when no guard holds a lease now: until its next poll this process lends leases without knowing the change.
    const longestMs = local && this.lends ? Math.max(othersMs, this.#leaseMs) : othersMs;
    const waitMs = longestMs > 0 ? longestMs * DRIFT + MARGIN_MS : 0;
    if (waitMs > 0) await delay(waitMs);
    this.#waited(waitMs);
  }

  async leave(): Promise<void> {
    if (!this.#caches) return;
    // Others wait for the leases that this process lent only while it is registered.
    const lentMs = this.#lentUntil - this.#clock.monotonic();
    if (lentMs > 0) await delay(lentMs);
    const filter = { _id: PREFIX + this.#processId };
    await inTime((limits) => this.#database.meta.deleteOne(filter, { ...limits })).catch(() => {
      // The store is unavailable: other processes see that the counter no longer changes.
    });
  }

  #others(limits: Limits) {
    // All ids with the prefix: ';' is the character after ':'.
    const range = { $gte: PREFIX, $lt: 'process;', $ne: PREFIX + this.#processId };
    return this.#database.meta.find({ _id: range }, limits).toArray();
  }
}

import { setTimeout as delay } from 'node:timers/promises';
import type { MongoDatabase } from './database.ts';
import { guarded, inTime, type Limits } from './errors.ts';

const PREFIX = 'process:';
/** A counter that stands still for so many of its leases belongs to a process that is gone. */
const GONE_LEASES = 10;

interface Seen {
  readonly counter: number;
  readonly since: number;
}

/** Which processes may use what they have read, and for how long: those that others must wait for. */
export class Registry {
  readonly #database: MongoDatabase;
  readonly #processId: string;
  readonly #leaseMs: number;
  readonly #caches: boolean;
  readonly #waited: (ms: number) => void;
  /** The counters of others, and since when they stand, by this process's own monotonic clock. */
  #seen = new Map<string, Seen>();
  #reaped = Number.NEGATIVE_INFINITY;

  /**
   * @param caches a process that keeps no records needs no entry.
   * @param waited told how long a change waits for the leases of others
   */
  constructor(
    database: MongoDatabase,
    processId: string,
    leaseMs: number,
    caches: boolean,
    waited: (ms: number) => void = () => {},
  ) {
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

  /** 0 when there is no other process. */
  async longestLeaseOfOthers(limits: Limits): Promise<number> {
    const others = await this.#others(limits);
    return Math.max(0, ...others.map(({ lease_ms }) => lease_ms ?? 0));
  }

  /** The ids of the processes that are registered, this one included. */
  async processes(limits: Limits): Promise<ReadonlySet<string>> {
    const others = await this.#others(limits);
    return new Set([this.#processId, ...others.map(({ _id }) => _id.slice(PREFIX.length))]);
  }

  /** Takes away entries whose counter has stood still; never by comparing the clocks of two machines. */
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

  /** For a change that must hold everywhere: waits until no other process can still use a record that it read before. */
  async waitForOthers(): Promise<void> {
    const longestMs = await guarded((limits) => this.longestLeaseOfOthers(limits));
    const waitMs = longestMs > 0 ? longestMs * 1.2 + 20 : 0;
    if (waitMs > 0) await delay(waitMs);
    this.#waited(waitMs);
  }

  async leave(): Promise<void> {
    if (!this.#caches) return;
    const filter = { _id: PREFIX + this.#processId };
    await inTime((limits) => this.#database.meta.deleteOne(filter, { ...limits })).catch(() => {
      // Away: others see its counter stand still.
    });
  }

  #others(limits: Limits) {
    // ';' is the character after ':', so the range is the prefix.
    const range = { $gte: PREFIX, $lt: 'process;', $ne: PREFIX + this.#processId };
    return this.#database.meta.find({ _id: range }, limits).toArray();
  }
}

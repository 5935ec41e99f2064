import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../keys/ports/clock.ts';
import type { Lendable, Lending } from '../../keys/ports/guards.ts';
import type { Lease } from '../lease.ts';
import { RecentChanges } from '../recent-changes.ts';
import type { Changes, Sharing, Warn } from '../store.ts';
import type { MongoAuditLog } from './audit-log.ts';
import type { MongoDatabase } from './database.ts';
import { inTime, type Limits, toApiError } from './errors.ts';
import type { FreshReads } from './fresh-reads.ts';
import type { MongoKeyStore } from './key-store.ts';
import type { MongoLockout } from './lockout.ts';
import type { Registry } from './registry.ts';
import type { MongoUsageLog } from './usage.ts';

const POLL_LIMIT_MS = 2_000;
/** After polls have failed for this long, the client itself may be broken and is replaced. */
const RECONNECT_MS = 4_000;
/** After this long without a successful poll, the process is unhealthy. */
const SILENT_MS = 5_000;
const CLOCK_EVERY_MS = 5_000;
const SKEW_TOLD_MS = 1_000;
const SKEW_REFUSED_MS = 5_000;

export interface SharingParts {
  readonly database: MongoDatabase;
  readonly registry: Registry;
  readonly keys: MongoKeyStore;
  readonly reads: FreshReads;
  readonly audit: MongoAuditLog;
  readonly lockout: MongoLockout;
  readonly usage: MongoUsageLog;
  readonly lease: Lease;
  readonly clock: Clock;
  readonly pollMs: number;
  readonly guardSecret: string;
  readonly warn: Warn;
}

/** The poll by which processes on one database learn of each other's changes (docs/design/lease.md B, C, G). */
export class MongoSharing implements Sharing, Lending {
  readonly lease: Lease;
  readonly secret: string;
  readonly pollMs: number;
  /** Changes of other processes are learned by polling: holding a question open gains nothing. */
  readonly holdMs = 0;
  readonly lentBeforeUntil = undefined;
  readonly #recent = new RecentChanges(-1, true);
  readonly #parts: SharingParts;
  readonly #stopped = new AbortController();
  #applied: (changes: Changes) => void = () => {};
  #cursor = -1;
  #loop: Promise<void> = Promise.resolve();
  /** The time since which all polls have failed. */
  #failing: number | undefined;
  #lastPoll = Number.NEGATIVE_INFINITY;
  #clockRead = Number.NEGATIVE_INFINITY;
  #skewMs = 0;

  constructor(parts: SharingParts) {
    this.#parts = parts;
    this.lease = parts.lease;
    this.secret = parts.guardSecret;
    this.pollMs = parts.pollMs;
  }

  async ready(): Promise<void> {}

  async changed(): Promise<void> {}

  /** Changes and lease are those of the last poll. */
  lend(cursor: number): Lendable {
    const { registry, lease } = this.#parts;
    const leaseMs = registry.lends ? Math.floor(lease.leftMs) : 0;
    if (leaseMs > 0) registry.lent(leaseMs);
    return { ...this.#recent.since(cursor), leaseMs };
  }

  get skewMs(): number {
    return this.#skewMs;
  }

  async start(applied: (changes: Changes) => void): Promise<void> {
    this.#applied = applied;
    try {
      await this.#poll();
    } catch (error) {
      throw toApiError(error);
    }
    this.#loop = this.#run();
  }

  /** Rejects when this process should get no calls: no poll for 5 s, or a clock too far from the store's. */
  async healthy(): Promise<void> {
    const silent = this.#parts.clock.monotonic() - this.#lastPoll;
    if (silent > SILENT_MS) throw toApiError(new Error(`no poll for ${Math.round(silent)} ms`));
    if (Math.abs(this.#skewMs) > SKEW_REFUSED_MS) {
      throw toApiError(new Error(`the clock is ${Math.round(this.#skewMs)} ms off the store's`));
    }
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
    await this.#parts.registry.leave();
  }

  async #run(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await delay(this.#parts.pollMs, undefined, { signal: this.#stopped.signal, ref: false }).catch(
        () => {},
      );
      if (this.#stopped.signal.aborted) return;
      try {
        await this.#poll();
        this.#failing = undefined;
      } catch (error) {
        await this.#failed(error);
      }
    }
  }

  /** First the registration, then the read: the other order is unsafe when a stalled process comes back. */
  async #poll(): Promise<void> {
    const { registry, keys, audit, usage, lockout, clock, lease, warn } = this.#parts;
    const start = lease.now();
    await inTime((limits) => registry.renew(limits), POLL_LIMIT_MS);
    const [{ revision, changes }] = await Promise.all([
      this.#parts.reads.poll((options) => keys.readChanges(this.#cursor, options), POLL_LIMIT_MS),
      inTime((limits) => lockout.refresh(limits), POLL_LIMIT_MS),
    ]);
    this.#applied({ revision, keyIds: changes?.map(({ keyId }) => keyId) });
    if (changes === undefined || this.#cursor < 0) this.#recent.restart(revision);
    this.#cursor = revision;
    for (const { keyId, revision: at } of changes ?? [])
      this.#recent.add({ revision: at, keyId, local: true });
    lease.renew(start);
    this.#lastPoll = start.monotonic;
    await audit.saveHead();
    usage.flushIfDue(clock.monotonic(), (error) => warn('counts of decisions could not be written', error));
    await registry.reap(clock.monotonic());
    await this.#compareClocks();
  }

  async #failed(error: unknown): Promise<void> {
    const { clock, database, warn } = this.#parts;
    if (this.#failing === undefined) warn('the store cannot be polled, trying again', error);
    this.#failing ??= clock.monotonic();
    if (clock.monotonic() - this.#failing < RECONNECT_MS) return;
    try {
      await database.reconnect();
    } catch {
      // Still unavailable: the next poll fails and tries again.
    }
  }

  async #compareClocks(): Promise<void> {
    const { clock, database, warn } = this.#parts;
    if (clock.monotonic() - this.#clockRead < CLOCK_EVERY_MS) return;
    this.#clockRead = clock.monotonic();
    const before = clock.now();
    const { localTime } = await inTime(
      (limits: Limits) => database.client.db().command({ hello: 1 }, { ...limits }),
      POLL_LIMIT_MS,
    );
    const skew = (localTime as Date).getTime() - (before + clock.now()) / 2;
    const off = Math.abs(skew) > SKEW_TOLD_MS;
    if (off && Math.abs(this.#skewMs) <= SKEW_TOLD_MS)
      warn(`this machine's clock is ${Math.round(-skew)} ms ahead of the store's`, undefined);
    this.#skewMs = skew;
  }
}

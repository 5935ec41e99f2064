import type { MongoClient } from 'mongodb';
import { RateLimiterMongo, type RateLimiterRes } from 'rate-limiter-flexible';
import type { Clock, FailureCounted, LockedAddress, Lockout, Page, Paged } from '../../keys/ports.ts';
import { LockedAddresses } from '../locked-addresses.ts';
import { countFailure, limiterOptions } from '../lockout-limiter.ts';
import { pagedBy } from '../paging.ts';
import { backoff } from '../retry.ts';
import type { LockoutSettings, Warn } from '../store.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, type Limits } from './errors.ts';
import type { LimitDoc } from './rows.ts';

const PREFIX = 'lockout:';
const POLL_MS = 250;
/** Polls that fail for so long are perhaps the client's fault. */
const RECONNECT_MS = 4_000;
const MAX_POLLED = 100_000;
const MAX_ATTEMPTS = 8;

/** Lockout on MongoDB: the library counts in the shared collection, a poll brings the locks of other processes. */
export class MongoLockout implements Lockout {
  readonly #settings: LockoutSettings;
  readonly #database: MongoDatabase;
  readonly #locked: LockedAddresses;
  #limiter: { readonly client: MongoClient; readonly counts: RateLimiterMongo } | undefined;
  readonly #warn: Warn;
  readonly #clock: Clock;
  #timer: NodeJS.Timeout | undefined;
  #polled: Promise<void> = Promise.resolve();
  /** Since when polls have failed. */
  #failing: number | undefined;
  #changes = 0;

  private constructor(database: MongoDatabase, settings: LockoutSettings, clock: Clock, warn: Warn) {
    this.#settings = settings;
    this.#database = database;
    this.#warn = warn;
    this.#clock = clock;
    this.#locked = new LockedAddresses(clock);
  }

  /** Knows the locks that stand before it answers the first call. */
  static async open(database: MongoDatabase, settings: LockoutSettings, clock: Clock, warn: Warn) {
    const lockout = new MongoLockout(database, settings, clock, warn);
    await inTime((limits) => lockout.#read(limits));
    lockout.#schedule();
    return lockout;
  }

  lockedForMs(ip: string): number {
    return this.#locked.forMs(ip);
  }

  fail(ip: string): Promise<FailureCounted> {
    this.#changes++;
    return guarded(() =>
      countFailure({ consume: (key) => this.#consume(key) }, this.#locked, ip, this.#settings),
    );
  }

  list(page: Page): Promise<Paged<LockedAddress>> {
    return guarded(async (limits) => {
      const locks = await this.#lockedNow(String(page.after?.[0] ?? ''), page.size + 1, limits);
      return pagedBy(locks.map(toLocked), page.size, ({ clientIp }) => [clientIp]);
    });
  }

  count(): Promise<number> {
    return guarded(async (limits) => (await this.#lockedNow('', MAX_POLLED, limits)).length);
  }

  async clear(ip: string): Promise<boolean> {
    const cleared = await guarded(() => this.#counts().delete(ip));
    this.#changes++;
    this.#locked.unlock(ip);
    return cleared;
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#polled;
    clearTimeout(this.#timer);
  }

  /** The library retries a lost race on the unique index only in MongoDB's own words. */
  async #consume(key: string): Promise<RateLimiterRes> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#counts().consume(key);
      } catch (refused) {
        if (attempt >= MAX_ATTEMPTS || failureOf(refused) !== 'DUPLICATE') throw refused;
        await backoff(attempt, 5, 100);
      }
    }
  }

  /** The library's limiter on the present client. */
  #counts(): RateLimiterMongo {
    const { client, limits } = this.#database;
    if (this.#limiter?.client !== client) {
      const counts = new RateLimiterMongo({
        ...limiterOptions(this.#settings),
        storeClient: client,
        dbName: limits.dbName,
        tableName: limits.collectionName,
        // Its indexes are migrations: they stand before the first call.
        disableIndexesCreation: true,
      });
      this.#limiter = { client, counts };
    }
    return this.#limiter.counts;
  }

  /** Judged by the server's clock, as the TTL index does. */
  #lockedNow(after: string, limit: number, limits: Limits): Promise<Lock[]> {
    // ';' is the character after ':', so the range is the prefix.
    const failures = {
      key: { $gt: PREFIX + after, $lt: 'lockout;' },
      points: { $gte: this.#settings.maxAttempts },
    };
    const pipeline = [
      { $match: failures },
      { $project: { key: 1, expire: 1, leftMs: { $subtract: ['$expire', '$$NOW'] } } },
      { $match: { leftMs: { $gt: 0 } } },
      { $sort: { key: 1 } },
      { $limit: limit },
    ];
    return this.#database.limits.aggregate<Lock>(pipeline, limits).toArray();
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      this.#polled = this.#poll().then(() => this.#schedule());
    }, POLL_MS).unref();
  }

  async #poll(): Promise<void> {
    try {
      await inTime((limits) => this.#read(limits));
      this.#failing = undefined;
    } catch (error) {
      if (this.#failing === undefined) this.#warn('the lockouts cannot be read, trying again', error);
      this.#failing ??= this.#clock.monotonic();
      if (this.#clock.monotonic() - this.#failing >= RECONNECT_MS) await this.#reconnect();
    }
  }

  async #reconnect(): Promise<void> {
    try {
      await this.#database.reconnect();
      this.#failing = undefined;
    } catch {
      // Still away: the next poll says so again.
    }
  }

  async #read(limits: Limits): Promise<void> {
    const changes = this.#changes;
    const locks = await this.#lockedNow('', MAX_POLLED, limits);
    // What this process locked or cleared while the read was under way is newer than the read.
    if (changes !== this.#changes) return;
    this.#locked.replaceAll(locks.map((lock) => [toLocked(lock).clientIp, Number(lock.leftMs)]));
  }
}

type Lock = Pick<LimitDoc, 'key' | 'expire'> & { readonly leftMs: number };

function toLocked(doc: Lock): LockedAddress {
  return { clientIp: doc.key.slice(PREFIX.length), expireTime: doc.expire.getTime() };
}

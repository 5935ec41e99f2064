import type { Collection } from 'mongodb';
import { RateLimiterMongo, type RateLimiterRes } from 'rate-limiter-flexible';
import type { Clock, LockedAddress, Lockout, Page, Paged } from '../../keys/ports.ts';
import { LockedAddresses } from '../locked-addresses.ts';
import { countFailure, limiterOptions } from '../lockout-limiter.ts';
import { pagedBy } from '../paging.ts';
import { backoff } from '../retry.ts';
import type { LockoutSettings, Warn } from '../store.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime } from './errors.ts';
import type { LimitDoc } from './rows.ts';

const PREFIX = 'lockout:';
const POLL_MS = 250;
const MAX_POLLED = 100_000;
const MAX_ATTEMPTS = 8;

/** Lockout on MongoDB: the library counts in the shared collection, a poll brings the locks of other processes. */
export class MongoLockout implements Lockout {
  readonly #settings: LockoutSettings;
  readonly #limits: Collection<LimitDoc>;
  readonly #locked: LockedAddresses;
  readonly #limiter: RateLimiterMongo;
  readonly #warn: Warn;
  #timer: NodeJS.Timeout | undefined;
  #polled: Promise<void> = Promise.resolve();
  #failing = false;
  #changes = 0;

  private constructor(database: MongoDatabase, settings: LockoutSettings, clock: Clock, warn: Warn) {
    this.#settings = settings;
    this.#limits = database.limits;
    this.#warn = warn;
    this.#locked = new LockedAddresses(clock);
    this.#limiter = new RateLimiterMongo({
      ...limiterOptions(settings),
      storeClient: database.client,
      dbName: database.db.databaseName,
      tableName: database.limits.collectionName,
      // Its indexes are migrations: they stand before the first call.
      disableIndexesCreation: true,
    });
  }

  /** Knows the locks that stand before it answers the first call. */
  static async open(database: MongoDatabase, settings: LockoutSettings, clock: Clock, warn: Warn) {
    const lockout = new MongoLockout(database, settings, clock, warn);
    await lockout.#read();
    lockout.#schedule();
    return lockout;
  }

  lockedForMs(ip: string): number {
    return this.#locked.forMs(ip);
  }

  fail(ip: string): Promise<number> {
    this.#changes++;
    return guarded(() =>
      countFailure({ consume: (key) => this.#consume(key) }, this.#locked, ip, this.#settings),
    );
  }

  list(page: Page): Promise<Paged<LockedAddress>> {
    return guarded(async () => {
      const locks = await this.#lockedNow(String(page.after?.[0] ?? ''), page.size + 1);
      return pagedBy(locks.map(toLocked), page.size, ({ clientIp }) => [clientIp]);
    });
  }

  count(): Promise<number> {
    return guarded(async () => (await this.#lockedNow('', MAX_POLLED)).length);
  }

  async clear(ip: string): Promise<boolean> {
    const cleared = await guarded(() => this.#limiter.delete(ip));
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
        return await this.#limiter.consume(key);
      } catch (refused) {
        if (attempt >= MAX_ATTEMPTS || failureOf(refused) !== 'DUPLICATE') throw refused;
        await backoff(attempt, 5, 100);
      }
    }
  }

  /** Judged by the server's clock, as the TTL index does. */
  #lockedNow(after: string, limit: number): Promise<Lock[]> {
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
    return this.#limits.aggregate<Lock>(pipeline).toArray();
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      this.#polled = this.#poll().then(() => this.#schedule());
    }, POLL_MS).unref();
  }

  async #poll(): Promise<void> {
    try {
      await inTime(() => this.#read());
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) this.#warn('the lockouts cannot be read, trying again', error);
      this.#failing = true;
    }
  }

  async #read(): Promise<void> {
    const changes = this.#changes;
    const locks = await this.#lockedNow('', MAX_POLLED);
    // What this process locked or cleared while the read was under way is newer than the read.
    if (changes !== this.#changes) return;
    this.#locked.replaceAll(locks.map((lock) => [toLocked(lock).clientIp, Number(lock.leftMs)]));
  }
}

type Lock = Pick<LimitDoc, 'key' | 'expire'> & { readonly leftMs: number };

function toLocked(doc: Lock): LockedAddress {
  return { clientIp: doc.key.slice(PREFIX.length), expireTime: doc.expire.getTime() };
}

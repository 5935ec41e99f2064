import type { Filter, MongoClient } from 'mongodb';
import { RateLimiterMongo, type RateLimiterRes } from 'rate-limiter-flexible';
import type { Clock } from '../../keys/ports/clock.ts';
import type { FailureCounted, LockedAddress, Lockout } from '../../keys/ports/limits.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import type { Lease } from '../lease.ts';
import { LockedAddresses } from '../locked-addresses.ts';
import { countFailure, type FailureLimiter, limiterOptions } from '../lockout-limiter.ts';
import { pagedBy, startOf } from '../paging.ts';
import { backoff } from '../retry.ts';
import type { LockoutSettings } from '../store.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, type Limits } from './errors.ts';
import type { LimitDoc } from './rows.ts';

const PREFIX = 'lockout:';
const MAX_POLLED = 100_000;
const MAX_ATTEMPTS = 8;

/** Lockout on MongoDB: the library counts in the shared collection, the poll reads the locks of other processes. */
export class MongoLockout implements Lockout {
  readonly #settings: LockoutSettings;
  readonly #lease: Lease;
  readonly #database: MongoDatabase;
  readonly #locked: LockedAddresses;
  #limiter: { readonly client: MongoClient; readonly counts: RateLimiterMongo } | undefined;
  #changes = 0;

  private constructor(database: MongoDatabase, settings: LockoutSettings, lease: Lease, clock: Clock) {
    this.#lease = lease;
    this.#settings = settings;
    this.#database = database;
    this.#locked = new LockedAddresses(clock);
  }

  /** Loads the current locks before the first call. */
  static async open(database: MongoDatabase, settings: LockoutSettings, lease: Lease, clock: Clock) {
    const lockout = new MongoLockout(database, settings, lease, clock);
    await inTime((limits) => lockout.refresh(limits));
    return lockout;
  }

  lockedForMs(ip: string): number | undefined {
    return this.#lease.holds ? this.#locked.forMs(ip) : undefined;
  }

  readLockedForMs(ip: string): Promise<number> {
    return guarded(async (limits) => {
      const [lock] = await this.#lockedNow({ key: PREFIX + ip }, 1, limits);
      return lock === undefined ? 0 : Number(lock.leftMs);
    });
  }

  fail(ip: string): Promise<FailureCounted> {
    this.#changes++;
    const limiter: FailureLimiter = {
      consume: (key) => this.#consume(key),
      set: (key, points, seconds) => this.#counts().set(key, points, seconds),
    };
    return guarded(() => countFailure(limiter, this.#locked, ip, this.#settings));
  }

  list(page: Page): Promise<Paged<LockedAddress>> {
    return guarded(async (limits) => {
      const locks = await this.#lockedNow(
        lockedAfter(String(startOf(page.after ?? [''], 'string')[0])),
        page.size + 1,
        limits,
      );
      return pagedBy(locks.map(toLocked), page.size, ({ clientIp }) => [clientIp]);
    });
  }

  count(): Promise<number> {
    return guarded(async (limits) => (await this.#lockedNow(lockedAfter(''), MAX_POLLED, limits)).length);
  }

  async clear(ip: string): Promise<boolean> {
    const cleared = await guarded(() => this.#counts().delete(ip));
    this.#changes++;
    this.#locked.unlock(ip);
    return cleared;
  }

  /** Retries a lost race on the unique index: the library recognises only MongoDB's error text, not FerretDB's. */
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

  /** The library's limiter on the current client. */
  #counts(): RateLimiterMongo {
    const { client, limits } = this.#database;
    if (this.#limiter?.client !== client) {
      const counts = new RateLimiterMongo({
        ...limiterOptions(this.#settings),
        storeClient: client,
        dbName: limits.dbName,
        tableName: limits.collectionName,
        // The migrations create its indexes before the first call.
        disableIndexesCreation: true,
      });
      this.#limiter = { client, counts };
    }
    return this.#limiter.counts;
  }

  /** Reads the current locks by the server's clock, as the TTL index does. */
  #lockedNow(where: Filter<LimitDoc>, limit: number, limits: Limits): Promise<Lock[]> {
    const failures = { ...where, points: { $gte: this.#settings.maxAttempts } };
    const pipeline = [
      { $match: failures },
      { $project: { key: 1, expire: 1, leftMs: { $subtract: ['$expire', '$$NOW'] } } },
      { $match: { leftMs: { $gt: 0 } } },
      { $sort: { key: 1 } },
      { $limit: limit },
    ];
    return this.#database.limits.aggregate<Lock>(pipeline, limits).toArray();
  }

  /** Loads the locks of other processes. */
  async refresh(limits: Limits): Promise<void> {
    const changes = this.#changes;
    const locks = await this.#lockedNow(lockedAfter(''), MAX_POLLED, limits);
    // Locks that this process set or cleared during the read are newer than its result.
    if (changes !== this.#changes) return;
    this.#locked.replaceAll(locks.map((lock) => [toLocked(lock).clientIp, Number(lock.leftMs)]));
  }
}

type Lock = Pick<LimitDoc, 'key' | 'expire'> & { readonly leftMs: number };

function toLocked(doc: Lock): LockedAddress {
  return { clientIp: doc.key.slice(PREFIX.length), expireTime: doc.expire.getTime() };
}

/** Keys with the prefix, after this address: ';' is the character after ':'. */
function lockedAfter(ip: string): Filter<LimitDoc> {
  return { key: { $gt: PREFIX + ip, $lt: 'lockout;' } };
}

import { RateLimiterRes } from 'rate-limiter-flexible';
import RateLimiterStoreAbstract from 'rate-limiter-flexible/lib/RateLimiterStoreAbstract.js';
import type { Clock } from '../../keys/ports/clock.ts';
import type { FailureCounted, LockedAddress, Lockout } from '../../keys/ports/limits.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { LockedAddresses } from '../locked-addresses.ts';
import { countFailure, limiterOptions } from '../lockout-limiter.ts';
import { pagedBy, startOf } from '../paging.ts';
import type { LockoutSettings } from '../store.ts';
import type { SqliteDatabase } from './database.ts';
import type { LimitRows } from './limit-rows.ts';
import type { Value } from './thread-messages.ts';

const PREFIX = 'lockout:';
// ';' is the character after ':', so the range is the prefix.
const LOCKED = `FROM api_key_limits
  WHERE key > ? AND key < 'lockout;' AND expire_time > ? AND value ->> 'points' >= ?`;

interface Failures {
  readonly points: number;
}

/** The limiter library's rules over the store's counter rows, on the injected clock. */
class FailureLimiter extends RateLimiterStoreAbstract {
  readonly #rows: LimitRows;
  readonly #clock: Clock;

  constructor(settings: LockoutSettings, rows: LimitRows, clock: Clock) {
    super(limiterOptions(settings));
    this.#rows = rows;
    this.#clock = clock;
  }

  protected override async _upsert(key: string, points: number, msDuration: number, force: boolean) {
    const now = this.#clock.now();
    const row = this.#rows.get(key);
    const counting = !force && row !== undefined && row.expireTime > now;
    const value: Failures = { points: counting ? (row.value as Failures).points + points : points };
    // Never later than a whole window from now: the clock may have gone back.
    const latest = now + msDuration;
    const next = { value, expireTime: counting ? Math.min(row.expireTime, latest) : latest };
    this.#rows.set(key, next);
    return next;
  }

  protected override async _get(key: string) {
    const row = this.#rows.get(key);
    return row !== undefined && row.expireTime > this.#clock.now() ? row : null;
  }

  protected override async _delete(key: string) {
    const was = await this._get(key);
    this.#rows.set(key, undefined);
    return was !== null;
  }

  protected override _getRateLimiterRes(_key: string, changed: number, result: unknown) {
    const row = result as { value: Failures; expireTime: number };
    const { points } = row.value;
    const left = Math.max(row.expireTime - this.#clock.now(), 0);
    return new RateLimiterRes(Math.max(this.points - points, 0), left, points, points === changed);
  }
}

export class SqliteLockout implements Lockout {
  readonly #settings: LockoutSettings;
  readonly #database: SqliteDatabase;
  readonly #clock: Clock;
  readonly #limiter: FailureLimiter;
  readonly #locked: LockedAddresses;

  private constructor(settings: LockoutSettings, rows: LimitRows, database: SqliteDatabase, clock: Clock) {
    this.#settings = settings;
    this.#database = database;
    this.#clock = clock;
    this.#limiter = new FailureLimiter(settings, rows, clock);
    this.#locked = new LockedAddresses(clock);
  }

  /** Knows the addresses that were locked before the start. */
  static async open(settings: LockoutSettings, rows: LimitRows, database: SqliteDatabase, clock: Clock) {
    const lockout = new SqliteLockout(settings, rows, database, clock);
    const { items } = await lockout.list({ size: Number.MAX_SAFE_INTEGER - 1, after: undefined });
    const window = settings.windowSeconds * 1000;
    const left = (expireTime: number) => Math.min(expireTime - clock.now(), window);
    lockout.#locked.replaceAll(items.map(({ clientIp, expireTime }) => [clientIp, left(expireTime)]));
    return lockout;
  }

  lockedForMs(ip: string): number {
    return this.#locked.forMs(ip);
  }

  async readLockedForMs(ip: string): Promise<number> {
    return this.#locked.forMs(ip);
  }

  fail(ip: string): Promise<FailureCounted> {
    return countFailure(this.#limiter, this.#locked, ip, this.#settings);
  }

  async list(page: Page): Promise<Paged<LockedAddress>> {
    const rows = await this.#database.query(
      `SELECT substr(key, ${PREFIX.length + 1}) AS ip, expire_time ${LOCKED} ORDER BY key LIMIT ?`,
      [PREFIX + String(startOf(page.after ?? [''], 'string')[0]), ...this.#bounds(), page.size + 1],
    );
    const locked = rows.map((row) => ({ clientIp: String(row.ip), expireTime: Number(row.expire_time) }));
    return pagedBy(locked, page.size, ({ clientIp }) => [clientIp]);
  }

  async count(): Promise<number> {
    const [row] = await this.#database.query(`SELECT count(*) AS n ${LOCKED}`, [PREFIX, ...this.#bounds()]);
    return Number(row?.n);
  }

  async clear(ip: string): Promise<boolean> {
    this.#locked.unlock(ip);
    return this.#limiter.delete(ip);
  }

  #bounds(): Value[] {
    return [this.#clock.now(), this.#settings.maxAttempts];
  }
}

import { RateLimiterSQLite } from 'rate-limiter-flexible';
import type { Clock } from '../../keys/ports/clock.ts';
import type { FailureCounted, LockedAddress, Lockout } from '../../keys/ports/limits.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { LockedAddresses } from '../locked-addresses.ts';
import { countFailure, limiterOptions } from '../lockout-limiter.ts';
import { pagedBy, startOf } from '../paging.ts';
import type { LockoutSettings } from '../store.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

const TABLE = 'api_key_lockouts';
const LOCKED = `FROM ${TABLE} WHERE key > ? AND expire > ? AND points >= ?`;

/** Lockout on the embedded store: the library counts in its own table, and memory holds the locked addresses. */
export class SqliteLockout implements Lockout {
  readonly #settings: LockoutSettings;
  readonly #database: SqliteDatabase;
  readonly #clock: Clock;
  readonly #limiter: RateLimiterSQLite;
  readonly #locked: LockedAddresses;

  private constructor(
    settings: LockoutSettings,
    committer: Committer,
    database: SqliteDatabase,
    clock: Clock,
  ) {
    this.#settings = settings;
    this.#database = database;
    this.#clock = clock;
    this.#limiter = new RateLimiterSQLite({
      ...limiterOptions(settings),
      // No prefix: the table holds only lockouts.
      keyPrefix: '',
      storeType: 'sqlite3',
      storeClient: new LimiterClient(committer),
      tableName: TABLE,
      tableCreated: true,
    });
    this.#locked = new LockedAddresses(clock);
  }

  /** Loads the addresses that were locked before the start. */
  static async open(settings: LockoutSettings, committer: Committer, database: SqliteDatabase, clock: Clock) {
    const lockout = new SqliteLockout(settings, committer, database, clock);
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
    const rows = await this.#database.query(`SELECT key, expire ${LOCKED} ORDER BY key LIMIT ?`, [
      String(startOf(page.after ?? [''], 'string')[0]),
      ...this.#bounds(),
      page.size + 1,
    ]);
    const locked = rows.map(({ key, expire }) => ({ clientIp: String(key), expireTime: Number(expire) }));
    return pagedBy(locked, page.size, ({ clientIp }) => [clientIp]);
  }

  async count(): Promise<number> {
    const [row] = await this.#database.query(`SELECT count(*) AS n ${LOCKED}`, ['', ...this.#bounds()]);
    return Number(row?.n);
  }

  async clear(ip: string): Promise<boolean> {
    const cleared = await this.#limiter.delete(ip);
    this.#locked.unlock(ip);
    return cleared;
  }

  #bounds(): Value[] {
    return [this.#clock.now(), this.#settings.maxAttempts];
  }
}

type Done = (this: { readonly changes: number }, error: unknown, row?: unknown) => void;

/**
 * The part of a `sqlite3` database that the library uses as its storeClient. The writer thread runs each statement in a
 * savepoint of the batch's transaction, so the library's own savepoints are ignored.
 */
class LimiterClient {
  readonly #committer: Committer;

  constructor(committer: Committer) {
    this.#committer = committer;
  }

  serialize(work: () => void): void {
    work();
  }

  get(sql: string, params: readonly Value[], done: Done): void {
    this.#committer.write([{ sql, params }]).then(
      (result) => done.call({ changes: 0 }, null, result.outcome === 'DONE' ? result.rows[0] : undefined),
      (error) => done.call({ changes: 0 }, error),
    );
  }

  run(sql: string, ...[params, done]: [Done] | [readonly Value[], Done]): void {
    if (typeof params === 'function') params.call({ changes: 0 }, null);
    else if (done !== undefined)
      this.#committer.delete(sql, params).then(
        (changes) => done.call({ changes }, null),
        (error) => done.call({ changes: 0 }, error),
      );
  }
}

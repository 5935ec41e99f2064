import type { UsageFilter, UsageLog, UsageRow } from '../../keys/ports/usage.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

/** The counts of decisions: the writer thread counts and writes them, this class requests writes and reads them. */
export class SqliteUsageLog implements UsageLog {
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;
  /** A flush that has not begun is shared by all its callers. */
  #flushing: Promise<void> = Promise.resolve();
  #waiting: Promise<void> | undefined;

  constructor(database: SqliteDatabase, committer: Committer) {
    this.#database = database;
    this.#committer = committer;
  }

  flush(): Promise<void> {
    this.#waiting ??= this.#flushing.then(async () => {
      this.#waiting = undefined;
      // A flush has several steps, so that calls are committed in between.
      const flushing = this.#writeAll();
      this.#flushing = flushing.catch(() => {});
      await flushing;
    });
    return this.#waiting;
  }

  async #writeAll(): Promise<void> {
    while (await this.#database.writeUsage());
  }

  async read(
    { keyId, ownerId, startTime, endTime }: UsageFilter,
    stepMs: number,
  ): Promise<readonly UsageRow[]> {
    await this.flush();
    const source = ownerId === undefined ? 'api_key_usage' : 'api_keys k JOIN api_key_usage ON key_id = k.id';
    const whose = ownerId === undefined ? 'key_id = ?' : 'k.owner_id = ?';
    const params: Value[] = [stepMs, ownerId ?? keyId ?? '', startTime, endTime];
    const rows = await this.#database.query(
      `WITH step AS (SELECT CAST(? AS INTEGER) AS ms)
       SELECT hour - ((hour % ms) + ms) % ms AS time, outcome, sum(count) AS n FROM ${source}, step
       WHERE ${whose} AND hour >= ? AND hour < ? GROUP BY 1, outcome ORDER BY 1, outcome`,
      params,
    );
    return rows.map(({ time, outcome, n }) => ({
      time: Number(time),
      outcome: String(outcome),
      count: Number(n),
    }));
  }

  deleteBefore(time: number, limit: number): Promise<number> {
    const sql = `DELETE FROM api_key_usage WHERE (key_id, hour, outcome) IN
      (SELECT key_id, hour, outcome FROM api_key_usage WHERE hour < ? ORDER BY hour LIMIT ?)`;
    return this.#committer.delete(sql, [time, limit]);
  }
}

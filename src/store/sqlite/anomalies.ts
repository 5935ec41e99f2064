import { randomBytes } from 'node:crypto';
import type { Anomaly, AnomalyFilter, AnomalyLog, ThresholdExceeded } from '../../keys/notices.ts';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { LAST, pagedBy, startOf } from '../paging.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import { unavailable } from './errors.ts';
import type { Value } from './thread-messages.ts';

const TRIP = `INSERT INTO api_key_anomalies (id, open_for, key_id, type, state, count, first_time, last_time)
  VALUES (?, ?, ?, ?, 'OPEN', ?, ?, ?)
  ON CONFLICT (open_for) DO UPDATE SET count = count + excluded.count, last_time = max(last_time, excluded.last_time)
  RETURNING *`;
const RESOLVE = `UPDATE api_key_anomalies SET state = 'RESOLVED', open_for = NULL,
  resolve_time = coalesce(resolve_time, ?) WHERE id = ? RETURNING *`;

export class SqliteAnomalyLog implements AnomalyLog {
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;

  constructor(database: SqliteDatabase, committer: Committer) {
    this.#database = database;
    this.#committer = committer;
  }

  async trip({ keyId, type, count, firstTime, lastTime }: ThresholdExceeded): Promise<Anomaly> {
    const id = `anomaly-${randomBytes(8).toString('hex')}`;
    const params = [id, `${keyId}:${type}`, keyId, type, count, firstTime, lastTime];
    const result = await this.#committer.write([{ sql: TRIP, params }]);
    const row = result.outcome === 'DONE' ? result.rows[0] : undefined;
    if (row === undefined) throw unavailable('an anomaly without its row');
    return toAnomaly(row);
  }

  async list(filter: AnomalyFilter, page: Page): Promise<Paged<Anomaly>> {
    const where = ['(first_time, id) < (?, ?)'];
    const params: Value[] = [...startOf(page.after ?? [LAST, ''], 'number', 'string')];
    for (const [column, value] of [
      ['key_id', filter.keyId],
      ['type', filter.type],
      ['state', filter.state],
    ] as const) {
      if (value === undefined) continue;
      where.push(`${column} = ?`);
      params.push(value);
    }
    const rows = await this.#database.query(
      `SELECT * FROM api_key_anomalies WHERE ${where.join(' AND ')} ORDER BY first_time DESC, id DESC LIMIT ?`,
      [...params, page.size + 1],
    );
    return pagedBy(rows.map(toAnomaly), page.size, ({ firstTime, id }) => [firstTime, id]);
  }

  async resolve(id: string, time: number, entry: AuditEntry): Promise<Anomaly | undefined> {
    const result = await this.#committer.write(
      [{ sql: RESOLVE, params: [time, id], mustReturn: true }],
      entry,
    );
    const row = result.outcome === 'DONE' ? result.rows[0] : undefined;
    return row === undefined ? undefined : toAnomaly(row);
  }

  deleteResolvedBefore(time: number, limit: number): Promise<number> {
    const sql = `DELETE FROM api_key_anomalies WHERE id IN
      (SELECT id FROM api_key_anomalies WHERE resolve_time < ? ORDER BY first_time LIMIT ?)`;
    return this.#committer.delete(sql, [time, limit]);
  }
}

function toAnomaly(row: Record<string, Value>): Anomaly {
  return {
    id: String(row.id),
    keyId: String(row.key_id),
    type: String(row.type) as Anomaly['type'],
    state: String(row.state) as Anomaly['state'],
    count: Number(row.count),
    firstTime: Number(row.first_time),
    lastTime: Number(row.last_time),
    resolveTime: row.resolve_time === null ? undefined : Number(row.resolve_time),
  };
}

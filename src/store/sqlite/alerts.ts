import type { Alert, AlertLog } from '../../keys/notices.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { FIRST, pagedBy, startOf } from '../paging.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

const INSERT = `INSERT INTO api_key_alerts (id, type, time, key_id, client_ip, text, detail, pending)
  VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (id) DO NOTHING RETURNING id`;

export class SqliteAlertLog implements AlertLog {
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;

  constructor(database: SqliteDatabase, committer: Committer) {
    this.#database = database;
    this.#committer = committer;
  }

  async insert({ id, type, time, keyId, clientIp, text, detail }: Alert): Promise<boolean> {
    const params = [id, type, time, keyId, clientIp, text, JSON.stringify(detail)];
    const result = await this.#committer.write([{ sql: INSERT, params }]);
    return result.outcome === 'DONE' && result.rows[0] !== undefined;
  }

  async get(id: string): Promise<Alert | undefined> {
    const [row] = await this.#database.query('SELECT * FROM api_key_alerts WHERE id = ?', [id]);
    return row === undefined ? undefined : toAlert(row);
  }

  async list(since: number, page: Page): Promise<Paged<Alert>> {
    const rows = await this.#database.query(
      'SELECT * FROM api_key_alerts WHERE time >= ? AND (time, id) > (?, ?) ORDER BY time, id LIMIT ?',
      [since, ...startOf(page.after ?? [FIRST, ''], 'number', 'string'), page.size + 1],
    );
    return pagedBy(rows.map(toAlert), page.size, ({ time, id }) => [time, id]);
  }

  async undelivered(time: number, limit: number): Promise<readonly Alert[]> {
    const rows = await this.#database.query(
      'SELECT * FROM api_key_alerts WHERE pending NOT NULL AND time < ? ORDER BY time LIMIT ?',
      [time, limit],
    );
    return rows.map(toAlert);
  }

  async markDelivered(id: string): Promise<void> {
    const sql = 'UPDATE api_key_alerts SET pending = NULL WHERE id = ?';
    await this.#committer.write([{ sql, params: [id] }]);
  }

  deleteBefore(time: number, limit: number): Promise<number> {
    const sql = `DELETE FROM api_key_alerts WHERE id IN
      (SELECT id FROM api_key_alerts WHERE time < ? AND pending IS NULL ORDER BY time LIMIT ?)`;
    return this.#committer.delete(sql, [time, limit]);
  }
}

function toAlert(row: Record<string, Value>): Alert {
  return {
    id: String(row.id),
    type: String(row.type) as Alert['type'],
    time: Number(row.time),
    keyId: String(row.key_id),
    clientIp: String(row.client_ip),
    text: String(row.text),
    detail: JSON.parse(String(row.detail)),
  };
}

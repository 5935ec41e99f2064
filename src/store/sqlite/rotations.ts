import type { Page, Paged } from '../../keys/ports/page.ts';
import type { OldUses, RotationLog, RotationRecord } from '../../keys/ports/rotations.ts';
import { LAST, pagedBy, startOf } from '../paging.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

export class SqliteRotationLog implements RotationLog {
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;

  constructor(database: SqliteDatabase, committer: Committer) {
    this.#database = database;
    this.#committer = committer;
  }

  async list({ keyId }: { keyId?: string }, page: Page): Promise<Paged<RotationRecord>> {
    const where = keyId === undefined ? '' : 'AND key_id = ?';
    const rows = await this.#database.query(
      `SELECT * FROM api_key_rotations WHERE (start_time, id) < (?, ?) ${where}
       ORDER BY start_time DESC, id DESC LIMIT ?`,
      [
        ...startOf(page.after ?? [LAST, ''], 'number', 'string'),
        ...(keyId === undefined ? [] : [keyId]),
        page.size + 1,
      ],
    );
    return pagedBy(rows.map(toRotation), page.size, ({ startTime, id }) => [startTime, id]);
  }

  async oldUses(rotationIds: readonly string[]): Promise<ReadonlyMap<string, number>> {
    if (rotationIds.length === 0) return new Map();
    const rows = await this.#database.query(
      'SELECT id, old_uses FROM api_key_rotations WHERE id IN (SELECT value FROM json_each(?)) AND old_uses > 0',
      [JSON.stringify(rotationIds)],
    );
    return new Map(rows.map((row) => [String(row.id), Number(row.old_uses)]));
  }

  async addOldUses(uses: ReadonlyMap<string, OldUses>): Promise<void> {
    const sql = `UPDATE api_key_rotations SET old_uses = old_uses + ?, last_old_use_time = ?, last_old_use_ip = ?
      WHERE id = ?`;
    await this.#committer.write(
      [...uses].map(([id, { uses: n, lastTime, lastIp }]) => ({ sql, params: [n, lastTime, lastIp, id] })),
    );
  }

  async noteGraceEnded(rotationId: string): Promise<boolean> {
    const sql =
      'UPDATE api_key_rotations SET grace_end_noted = 1 WHERE id = ? AND grace_end_noted = 0 RETURNING id';
    const result = await this.#committer.write([{ sql, params: [rotationId] }]);
    return result.outcome === 'DONE' && result.rows[0] !== undefined;
  }
}

function toRotation(row: Record<string, Value>): RotationRecord {
  const time = (name: string) => (row[name] === null ? undefined : Number(row[name]));
  return {
    id: String(row.id),
    keyId: String(row.key_id),
    mode: String(row.mode) as RotationRecord['mode'],
    startTime: Number(row.start_time),
    expireTime: Number(row.expire_time),
    completeTime: time('complete_time'),
    oldUses: Number(row.old_uses),
    lastOldUseTime: time('last_old_use_time'),
    lastOldUseIp: String(row.last_old_use_ip),
  };
}

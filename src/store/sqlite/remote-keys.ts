import type { AuditEntry } from '../../keys/ports/audit.ts';
import type { RemoteKeyChange, RemoteKeyLog, RemoteKeyRecord } from '../../keys/remote-keys.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

const COLUMNS =
  'id, user, name, scopes, last_eight, hash, create_time, expire_time, delete_time, last_verify_time, last_verify_alive';

export class SqliteRemoteKeyLog implements RemoteKeyLog {
  readonly #table: 'gitea_tokens' | 'n8n_api_keys';
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;

  constructor(table: 'gitea_tokens' | 'n8n_api_keys', database: SqliteDatabase, committer: Committer) {
    this.#table = table;
    this.#database = database;
    this.#committer = committer;
  }

  async put(record: RemoteKeyRecord, entry: AuditEntry): Promise<void> {
    const { id, user, name, scopes, lastEight, hash, createTime, lastVerifyAlive: alive } = record;
    const times = [record.expireTime ?? null, record.deleteTime ?? null, record.lastVerifyTime ?? null];
    const verified = alive === undefined ? null : Number(alive);
    const params = [id, user, name, JSON.stringify(scopes), lastEight, hash, createTime, ...times, verified];
    const sql = `INSERT OR REPLACE INTO ${this.#table} (${COLUMNS}) VALUES (?${', ?'.repeat(params.length - 1)})`;
    await this.#committer.write([{ sql, params }], entry);
  }

  async change(id: string, change: RemoteKeyChange, entry: AuditEntry): Promise<boolean> {
    const [set, values]: [string, Value[]] =
      'deleteTime' in change
        ? ['delete_time = ?', [change.deleteTime]]
        : [
            'last_verify_time = ?, last_verify_alive = ?',
            [change.lastVerifyTime, Number(change.lastVerifyAlive)],
          ];
    const sql = `UPDATE ${this.#table} SET ${set} WHERE id = ? RETURNING id`;
    const result = await this.#committer.write([{ sql, params: [...values, id], mustReturn: true }], entry);
    return result.outcome === 'DONE';
  }

  async get(id: string): Promise<RemoteKeyRecord | undefined> {
    return (await this.#read('id = ?', id))[0];
  }

  async findByHash(hash: string): Promise<RemoteKeyRecord | undefined> {
    return (await this.#read('hash = ?', hash))[0];
  }

  list(user: string): Promise<readonly RemoteKeyRecord[]> {
    return this.#read('user = ? AND delete_time IS NULL', user);
  }

  async #read(where: string, value: string): Promise<RemoteKeyRecord[]> {
    const sql = `SELECT * FROM ${this.#table} WHERE ${where} ORDER BY create_time DESC, id DESC`;
    return (await this.#database.query(sql, [value])).map(toRecord);
  }
}

function toRecord(row: Record<string, Value>): RemoteKeyRecord {
  const time = (name: string) => (row[name] === null ? undefined : Number(row[name]));
  return {
    id: String(row.id),
    user: String(row.user),
    name: String(row.name),
    scopes: JSON.parse(String(row.scopes)),
    lastEight: String(row.last_eight),
    hash: String(row.hash),
    createTime: Number(row.create_time),
    expireTime: time('expire_time'),
    deleteTime: time('delete_time'),
    lastVerifyTime: time('last_verify_time'),
    lastVerifyAlive: row.last_verify_alive === null ? undefined : row.last_verify_alive === 1,
  };
}

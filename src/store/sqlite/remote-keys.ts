import type { AuditEntry } from '../../keys/ports/audit.ts';
import type {
  RemoteKeyChange,
  RemoteKeyLog,
  RemoteKeyRecord,
  RemoteUser,
  RemoteVerdict,
} from '../../keys/remote-keys.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

const COLUMNS =
  'id, user, user_id, name, scopes, last_eight, hash, create_time, expire_time, delete_time, last_verify_time, last_verify_result';

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
    const { id, user, userId, name, scopes, lastEight, hash, createTime } = record;
    const optional = [record.expireTime, record.deleteTime, record.lastVerifyTime, record.lastVerifyResult];
    const fixed = [id, user, userId ?? null, name, JSON.stringify(scopes), lastEight, hash, createTime];
    const params = [...fixed, ...optional.map((value) => value ?? null)];
    const sql = `INSERT OR REPLACE INTO ${this.#table} (${COLUMNS}) VALUES (?${', ?'.repeat(params.length - 1)})`;
    await this.#committer.write([{ sql, params }], entry);
  }

  async change(id: string, change: RemoteKeyChange, entry: AuditEntry): Promise<boolean> {
    const [set, values] = changed(change);
    const sql = `UPDATE ${this.#table} SET ${set} WHERE id = ? RETURNING id`;
    const result = await this.#committer.write([{ sql, params: [...values, id], mustReturn: true }], entry);
    return result.outcome === 'DONE';
  }

  find(ids: readonly string[]): Promise<readonly RemoteKeyRecord[]> {
    return this.#read('id IN (SELECT value FROM json_each(?))', [JSON.stringify(ids)]);
  }

  async findByHash(hash: string): Promise<RemoteKeyRecord | undefined> {
    return (await this.#read('hash = ?', [hash]))[0];
  }

  list({ user, userId }: RemoteUser): Promise<readonly RemoteKeyRecord[]> {
    return this.#read('(user = ? OR user_id = ?) AND delete_time IS NULL', [user, userId ?? null]);
  }

  async #read(where: string, values: Value[]): Promise<RemoteKeyRecord[]> {
    const sql = `SELECT * FROM ${this.#table} WHERE ${where} ORDER BY create_time DESC, id DESC`;
    return (await this.#database.query(sql, values)).map(toRecord);
  }
}

function changed(change: RemoteKeyChange): [string, Value[]] {
  if ('deleteTime' in change) return ['delete_time = ?', [change.deleteTime]];
  if ('seenOf' in change) {
    const { user, userId } = change.seenOf;
    return ['delete_time = NULL, user = ?, user_id = coalesce(?, user_id)', [user, userId ?? null]];
  }
  return ['last_verify_time = ?, last_verify_result = ?', [change.lastVerifyTime, change.lastVerifyResult]];
}

function toRecord(row: Record<string, Value>): RemoteKeyRecord {
  const time = (name: string) => (row[name] === null ? undefined : Number(row[name]));
  const text = (name: string) => (row[name] === null ? undefined : String(row[name]));
  return {
    id: String(row.id),
    user: String(row.user),
    userId: text('user_id'),
    name: String(row.name),
    scopes: JSON.parse(String(row.scopes)),
    lastEight: String(row.last_eight),
    hash: String(row.hash),
    createTime: Number(row.create_time),
    expireTime: time('expire_time'),
    deleteTime: time('delete_time'),
    lastVerifyTime: time('last_verify_time'),
    lastVerifyResult: text('last_verify_result') as RemoteVerdict | undefined,
  };
}

import type { Key } from '../../keys/key.ts';
import { KEY_STATUSES, KEY_TYPES } from '../../keys/key.ts';
import type { MaybePromise } from '../../keys/maybe-promise.ts';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type {
  DueTime,
  Found,
  Inserted,
  KeyChange,
  KeyCounts,
  KeyFilter,
  KeyStore,
  SecretOwner,
} from '../../keys/ports/key-store.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import type { RotationEffects } from '../../keys/rotation.ts';
import { revisionNotReached } from '../errors.ts';
import { FIRST, LAST_CHARACTER, pagedBy, startOf } from '../paging.ts';
import { RecentChanges } from '../recent-changes.ts';
import type { Committer } from './committer.ts';
import type { PointRead, SqliteDatabase } from './database.ts';
import type { DeferredTable } from './deferred-rows.ts';
import { unavailable } from './errors.ts';
import { rowIdFromHash } from './row-id.ts';
import { KEY_COLUMNS, KEY_SELECT, KeyReader, keyValues } from './rows.ts';
import type { GuardedResult, Statement, Value, WriteResult } from './thread-messages.ts';

const RAISE_REVISION: Statement = {
  sql: "UPDATE api_key_meta SET value = value + 1 WHERE id = 'revision' RETURNING value AS revision",
  params: [],
};
const KEPT_CHANGES = 1_000;
const REVISION = "(SELECT value FROM api_key_meta WHERE id = 'revision')";
const INSERT = `INSERT INTO api_keys (row, ${KEY_COLUMNS.join(', ')}, revision)
  VALUES (?${', ?'.repeat(KEY_COLUMNS.length)}, ${REVISION}) RETURNING id`;
const REPLACE = `UPDATE api_keys SET ${KEY_COLUMNS.map((column) => `${column} = ?`).join(', ')}, revision = ${REVISION}
  WHERE id = ? AND etag = ? RETURNING id`;
const WITH_LAST_USE = `SELECT k.*, u.value AS last_use_time
  FROM api_keys k LEFT JOIN api_key_last_uses u ON u.key = k.id`;
const LIVE =
  'revoke_time IS NULL AND disabled = 0 AND expired = 0 AND (expire_time IS NULL OR expire_time > ?)';

const EXPIRED =
  'revoke_time IS NULL AND disabled = 0 AND (expired = 1 OR expire_time IS NOT NULL AND expire_time <= ?)';

const DUE_COLUMNS: Readonly<Record<DueTime, string>> = {
  ROTATION_GRACE: 'rotation_expire_time',
  ROTATION: 'rotation_due_time',
  EXPIRY: 'expire_time',
};

export class SqliteKeyStore implements KeyStore {
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;
  readonly #byPlace: PointRead;
  readonly #byHash: PointRead;
  readonly #byRetiredHash: PointRead;
  readonly #byId: PointRead;
  readonly #byRequestId: PointRead;
  readonly #lastUses: DeferredTable<number>;
  readonly #reader = new KeyReader();
  /** The newest revision: only this process creates them. */
  #revision: number;
  /** For guards. */
  readonly recent: RecentChanges;

  constructor(database: SqliteDatabase, committer: Committer, lastUses: DeferredTable<number>) {
    this.#database = database;
    this.#committer = committer;
    this.#lastUses = lastUses;
    const bySecret = (table: string) =>
      database.snapshotRead(
        `SELECT ${KEY_SELECT} FROM ${table} s JOIN api_keys k ON k.id = s.key_id WHERE s.hash = ?`,
      );
    this.#byPlace = database.snapshotRead(`SELECT ${KEY_SELECT} FROM api_keys k WHERE row = ?`);
    this.#byHash = bySecret('api_key_secrets');
    this.#byRetiredHash = bySecret('api_key_retired_secrets');
    this.#byId = database.snapshotRead(`SELECT ${KEY_SELECT} FROM api_keys k WHERE id = ?`);
    this.#byRequestId = database.snapshotRead(`SELECT ${KEY_SELECT} FROM api_keys k WHERE request_id = ?`);
    const revision = database.pointRead("SELECT value FROM api_key_meta WHERE id = 'revision'");
    this.#revision = Number(revision()?.[0] ?? 0);
    this.recent = new RecentChanges(this.#revision);
  }

  /** Returns the key without last_use_time, which no decision needs. */
  findByHash(secretHash: string, minRevision = 0): MaybePromise<Found> {
    const revision = this.#revision;
    if (revision < minRevision) return Promise.reject(revisionNotReached(minRevision, revision));
    const key = this.#inPlace(secretHash) ?? this.#elsewhere(secretHash);
    if (key !== undefined) return { key, revision, ageMs: 0 };
    const former = this.#byRetiredHash(secretHash);
    return former === undefined
      ? { key: undefined, revision, ageMs: 0 }
      : { key: this.#reader.read(former), revision, ageMs: 0, retired: true };
  }

  /** Finds the key that was created with this secret by one page read. */
  #inPlace(secretHash: string): Key | undefined {
    const row = this.#byPlace(rowIdFromHash(secretHash) ?? null);
    const key = row === undefined ? undefined : this.#reader.read(row);
    return key?.secrets.some(({ hash }) => hash === secretHash) ? key : undefined;
  }

  /** Finds a key by a rotated secret, or by a hash whose row id was taken. */
  #elsewhere(secretHash: string): Key | undefined {
    const row = this.#byHash(secretHash);
    return row === undefined ? undefined : this.#reader.read(row);
  }

  peekCached(): undefined {
    return undefined;
  }

  isCurrent(): boolean {
    return true;
  }

  async get(id: string): Promise<Key | undefined> {
    const row = this.#byId(id);
    return row === undefined ? undefined : this.#reader.read(row, this.#lastUses.get(id));
  }

  async list(filter: KeyFilter, page: Page): Promise<Paged<Key>> {
    const where: string[] = [];
    const params: Value[] = [];
    const add = (sql: string, ...values: Value[]) => {
      where.push(sql);
      params.push(...values);
    };
    if (filter.ownerId !== undefined) add('owner_id = ?', filter.ownerId);
    if (filter.type !== undefined) add('key_type = ?', filter.type);
    if (filter.status !== undefined) addStatus(filter.status, add);
    if (filter.prefix !== undefined) {
      const range = [filter.prefix, filter.prefix + LAST_CHARACTER];
      add('(id >= ? AND id < ? OR name >= ? AND name < ?)', ...range, ...range);
    }
    if (page.after !== undefined)
      add('(create_time, id) > (?, ?)', ...startOf(page.after, 'number', 'string'));
    const rows = await this.#database.query(
      `${WITH_LAST_USE} ${where.length > 0 ? `WHERE ${where.join(' AND ')}` : ''}
       ORDER BY create_time, id LIMIT ?`,
      [...params, page.size + 1],
    );
    return pagedBy(this.#readAll(rows), page.size, (key) => [key.createTime, key.id]);
  }

  async insert(
    key: Key,
    entry: AuditEntry,
    place = rowIdFromHash(key.secrets[0]?.hash ?? '') ?? null,
  ): Promise<Inserted> {
    const result = await this.#change(
      [
        { sql: INSERT, params: [place, ...keyValues(key)] },
        ...secretRows(key),
        ...publication(key.id, 'CREATED'),
      ],
      entry,
    );
    if (result.outcome === 'DONE')
      return { outcome: 'INSERTED', key: { ...key, revision: this.#published(result, key) } };
    // The row id is taken by a hash with the same first digits: this key gets another row.
    if (result.outcome === 'NOT_UNIQUE' && result.what === 'api_keys.row' && place !== null)
      return this.insert(key, entry, null);
    const holder = key.requestId === undefined ? undefined : this.#byRequestId(key.requestId);
    if (result.outcome === 'NOT_UNIQUE' && result.what === 'api_keys.request_id' && holder !== undefined) {
      return { outcome: 'REQUEST_ID_USED', key: this.#reader.read(holder) };
    }
    return { outcome: 'COLLISION' };
  }

  /** Inserts each key by a write of its own; the committer puts them into one transaction. */
  insertMany(items: Parameters<KeyStore['insertMany']>[0]): Promise<readonly Inserted[]> {
    return Promise.all(items.map(({ key, entry }) => this.insert(key, entry)));
  }

  async holdersOf(secretHashes: readonly string[]): Promise<ReadonlyMap<string, SecretOwner>> {
    const holders = new Map<string, SecretOwner>();
    const read = async (table: string, retired: boolean) => {
      const sql = `SELECT hash, key_id FROM ${table} WHERE hash IN (SELECT value FROM json_each(?))`;
      for (const { hash, key_id } of await this.#database.query(sql, [JSON.stringify(secretHashes)]))
        holders.set(String(hash), { keyId: String(key_id), retired });
    };
    await read('api_key_retired_secrets', true);
    await read('api_key_secrets', false);
    return holders;
  }

  async replace(
    key: Key,
    expectedEtag: string,
    change: KeyChange,
    entry: AuditEntry,
    effects?: RotationEffects,
  ): Promise<Key | undefined> {
    const result = await this.#change(
      [
        { sql: REPLACE, params: [...keyValues(key), key.id, expectedEtag], mustReturn: true },
        { sql: 'DELETE FROM api_key_secrets WHERE key_id = ?', params: [key.id] },
        ...secretRows(key),
        ...effectRows(key.id, effects, entry.time),
        ...publication(key.id, change),
      ],
      entry,
    );
    return result.outcome === 'DONE' ? { ...key, revision: this.#published(result, key) } : undefined;
  }

  async #change(statements: readonly Statement[], entry: AuditEntry): Promise<WriteResult> {
    try {
      return await this.#committer.write([RAISE_REVISION, ...statements], entry);
    } catch (error) {
      this.recent.doubt();
      throw error;
    }
  }

  async due(kind: DueTime, until: number, page: Page): Promise<Paged<Key>> {
    const column = DUE_COLUMNS[kind];
    const rows = await this.#database.query(
      `${WITH_LAST_USE} WHERE ${column} <= ? AND (${column}, id) > (?, ?) AND revoke_time IS NULL
       ORDER BY ${column}, id LIMIT ?`,
      [until, ...startOf(page.after ?? [FIRST, ''], 'number', 'string'), page.size + 1],
    );
    const time = (key: Key) => Number(rows.find((row) => row.id === key.id)?.[column]);
    return pagedBy(this.#readAll(rows), page.size, (key) => [time(key), key.id]);
  }

  async forgetRequestId(keyId: string, requestId: string): Promise<void> {
    const sql = 'UPDATE api_keys SET request_id = NULL WHERE id = ? AND request_id = ?';
    await this.#committer.write([{ sql, params: [keyId, requestId] }]);
  }

  async writeLastUses(uses: ReadonlyMap<string, number>): Promise<void> {
    // Only memory is compared: the file's own statement keeps the later of two times.
    for (const [id, time] of uses) if (time > (this.#lastUses.recall(id) ?? 0)) this.#lastUses.set(id, time);
    // An empty write makes a transaction, which carries the last uses.
    await this.#committer.write([]);
  }

  async count(now: number): Promise<KeyCounts> {
    const rows = await this.#database.query(
      `SELECT key_type, count(*) AS n, count(revoke_time) AS revoked,
         sum(revoke_time IS NULL AND disabled = 1) AS disabled, sum(${LIVE}) AS active
       FROM api_keys GROUP BY key_type`,
      [now],
    );
    const sum = (column: string) => rows.reduce((total, row) => total + Number(row[column]), 0);
    const counts = { REVOKED: sum('revoked'), DISABLED: sum('disabled'), ACTIVE: sum('active') };
    const expired = sum('n') - counts.REVOKED - counts.DISABLED - counts.ACTIVE;
    const ofType = (type: string) => Number(rows.find((row) => row.key_type === type)?.n ?? 0);
    return {
      byStatus: Object.fromEntries(
        KEY_STATUSES.map((status) => [status, status === 'EXPIRED' ? expired : counts[status]]),
      ) as KeyCounts['byStatus'],
      byType: Object.fromEntries(KEY_TYPES.map((type) => [type, ofType(type)])) as KeyCounts['byType'],
    };
  }

  async changesSince(after: number) {
    const revision = await this.revision();
    const rows = await this.#database.query(
      'SELECT * FROM api_key_changes WHERE revision > ? AND revision <= ? ORDER BY revision',
      [after, revision],
    );
    const changes = rows.map((row) => ({
      revision: Number(row.revision),
      keyId: String(row.key_id),
      change: String(row.change) as KeyChange,
    }));
    return { revision, changes: rows.length === revision - after ? changes : undefined };
  }

  async revision(): Promise<number> {
    return this.#revision;
  }

  /** Continues from at least this revision. */
  skipTo(revision: number): void {
    this.#revision = Math.max(this.#revision, revision);
    this.recent.restart(this.#revision);
  }

  #published(result: GuardedResult, { id: keyId, everLocal: local }: Key): number {
    if (result.outcome !== 'DONE') throw unavailable('no revision');
    const revision = Number(result.rows[0]?.revision);
    this.#revision = Math.max(this.#revision, revision);
    this.recent.add({ revision, keyId, local });
    return revision;
  }

  /** Reads the keys of a query, with last uses that are not in their table yet. */
  #readAll(rows: readonly Record<string, Value>[]): Key[] {
    return rows.map((row) => {
      const written = row.last_use_time === null ? undefined : Number(row.last_use_time);
      const columns = [...KEY_COLUMNS, 'revision'].map((column) => row[column] ?? null);
      return this.#reader.read(columns, this.#lastUses.recall(String(row.id)) ?? written);
    });
  }
}

function addStatus(
  { is, at }: NonNullable<KeyFilter['status']>,
  add: (sql: string, ...values: Value[]) => void,
) {
  if (is === 'ACTIVE') add(LIVE, at);
  else if (is === 'EXPIRED') add(EXPIRED, at);
  else if (is === 'REVOKED') add('revoke_time IS NOT NULL');
  else add('revoke_time IS NULL AND disabled = 1');
}

function secretRows(key: Key): Statement[] {
  const sql = 'INSERT INTO api_key_secrets (hash, key_id) VALUES (?, ?)';
  return key.secrets.map(({ hash }) => ({ sql, params: [hash, key.id] }));
}

/** Notes the change under its revision, and deletes the oldest noted change. */
function publication(keyId: string, change: KeyChange): Statement[] {
  return [
    { sql: `INSERT INTO api_key_changes VALUES (${REVISION}, ?, ?)`, params: [keyId, change] },
    { sql: `DELETE FROM api_key_changes WHERE revision <= ${REVISION} - ?`, params: [KEPT_CHANGES] },
  ];
}

/** The rows that a change of secrets writes beside the key. */
function effectRows(keyId: string, effects: RotationEffects | undefined, time: number): Statement[] {
  if (effects === undefined) return [];
  const retire = 'INSERT OR IGNORE INTO api_key_retired_secrets (hash, key_id, retire_time) VALUES (?, ?, ?)';
  const rows: Statement[] = effects.retired.map((hash) => ({ sql: retire, params: [hash, keyId, time] }));
  const { begun, completed } = effects;
  if (completed !== undefined) {
    const sql = 'UPDATE api_key_rotations SET complete_time = ? WHERE id = ?';
    rows.push({ sql, params: [completed.time, completed.id] });
  }
  if (begun !== undefined) {
    const sql = `INSERT INTO api_key_rotations (id, key_id, mode, start_time, expire_time, complete_time)
      VALUES (?, ?, ?, ?, ?, ?)`;
    const { id, mode, startTime, expireTime, completeTime } = begun;
    rows.push({ sql, params: [id, keyId, mode, startTime, expireTime, completeTime ?? null] });
  }
  return rows;
}

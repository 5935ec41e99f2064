import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Worker } from 'node:worker_threads';
import { Chain } from '../../audit/chain.ts';
import { StartError } from '../store.ts';
import { addFilterColumns } from './audit-rows.ts';
import { addNoteFunctions } from './chain-notes.ts';
import { unavailable } from './errors.ts';
import { MIGRATIONS } from './migrations.ts';
import { rowIdFromHash } from './row-id.ts';
import type {
  CommitRequest,
  GuardedResult,
  QueryRequest,
  ThreadData,
  ThreadReply,
  ThreadRequest,
  UsageRequest,
  Value,
} from './thread-messages.ts';

// A request before the thread numbers it.
type Unnumbered =
  | Omit<CommitRequest, 'id'>
  | Omit<QueryRequest, 'id'>
  | Omit<UsageRequest, 'id'>
  | { kind: 'close' };

// A clone runs .ts sources, a package compiled .js files.
const THREAD = new URL(import.meta.url.replace(/database(\.\w+)$/, 'thread$1'));

/** One thread and its pending requests. */
class Thread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (v: unknown) => void; reject: (e: unknown) => void }>();
  #next = 0;
  #dead: unknown;
  #closing = false;
  readonly #gone: (error: unknown) => void;

  /** @param gone called when the thread ends without having been closed */
  constructor(data: ThreadData, gone: (error: unknown) => void) {
    this.#gone = gone;
    this.#worker = new Worker(THREAD, { workerData: data });
    this.#worker.on('message', (reply: ThreadReply) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if ('error' in reply) waiting?.reject(Object.assign(new Error(reply.error.message), reply.error));
      else waiting?.resolve(reply.result);
    });
    this.#worker.on('error', (error) => this.#die(error));
    this.#worker.on('exit', () => this.#die(new Error('the store thread has ended')));
  }

  request(message: Unnumbered): Promise<unknown> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    if (message.kind === 'close') this.#closing = true;
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...message, id } as ThreadRequest);
    });
  }

  #die(error: unknown): void {
    if (this.#dead === undefined && !this.#closing) this.#gone(error);
    this.#dead ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#dead);
    this.#waiting.clear();
  }
}

export type PointRead = (...params: Value[]) => readonly Value[] | undefined;

/** @param before runs before each read */
function pointRead(connection: DatabaseSync, sql: string, before = () => {}): PointRead {
  const statement = connection.prepare(sql);
  // Arrays: an object with column names costs as much again as the read.
  statement.setReturnArrays(true);
  return (...params) => {
    try {
      before();
      return statement.get(...params) as unknown as readonly Value[] | undefined;
    } catch (error) {
      throw unavailable(error);
    }
  };
}

/** Every so many commits SQLite may check-point: move the write-ahead log into the file. */
const COMMITS_A_SNAPSHOT = 32;
const SNAPSHOT_CACHE_KIB = 32_768;

/**
 * A connection that reads from one snapshot over many commits. Otherwise each commit of an event would make SQLite drop
 * the connection's whole page cache, though no row that is read here has changed. So the snapshot ends only when such a
 * row changes, and now and then for SQLite's checkpoint.
 */
class Snapshot {
  readonly connection: DatabaseSync;
  #open = false;
  #paused = false;
  #commits = 0;

  constructor(path: string) {
    this.connection = new DatabaseSync(path, { readOnly: true });
    this.connection.exec(`PRAGMA cache_size = -${SNAPSHOT_CACHE_KIB}`);
  }

  begin(): void {
    if (this.#open || this.#paused) return;
    this.connection.exec('BEGIN');
    this.#open = true;
  }

  end(): void {
    if (!this.#open) return;
    this.connection.exec('COMMIT');
    this.#open = false;
  }

  /** Runs before each commit: a reader on an old snapshot blocks the checkpoint. */
  pauseForCheckpoint(): void {
    this.#commits++;
    if (this.#commits < COMMITS_A_SNAPSHOT) return;
    this.#commits = 0;
    this.#paused = true;
    this.end();
  }

  resume(): void {
    this.#paused = false;
  }

  close(): void {
    this.end();
    this.connection.close();
  }
}

/** The database: connections for point reads on the event loop, a thread for writes, a thread for long queries. */
export class SqliteDatabase {
  readonly #lock: DatabaseSync;
  readonly #reads: DatabaseSync;
  readonly #snapshot: Snapshot;
  readonly #writer: Thread;
  readonly #reader: Thread;

  private constructor(
    path: string,
    processId: string,
    lock: DatabaseSync,
    chainKey: Uint8Array | undefined,
    broken: (error: unknown) => void,
  ) {
    this.#lock = lock;
    this.#reads = new DatabaseSync(path, { readOnly: true });
    this.#snapshot = new Snapshot(path);
    this.#writer = new Thread({ path, processId, chainKey, role: 'writer' }, broken);
    this.#reader = new Thread({ path, processId, chainKey, role: 'reader' }, broken);
  }

  /** @throws StartError when the file cannot be opened, or another process uses it. */
  static open(
    path: string,
    processId: string,
    chainKey?: Uint8Array,
    broken: (error: unknown) => void = () => {},
  ): SqliteDatabase {
    let lock: DatabaseSync | undefined;
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      lock = lockFile(`${path}.lock`);
      migrate(path, chainKey);
      return new SqliteDatabase(path, processId, lock, chainKey, broken);
    } catch (error) {
      lock?.close();
      if (error instanceof StartError) throw error;
      throw new StartError(69, `STORE_URL: cannot open ${path}: ${(error as Error).message}`, error);
    }
  }

  /** Prepares a point read on the event loop: microseconds, never a scan. It returns the columns in order. */
  pointRead(sql: string): PointRead {
    return pointRead(this.#reads, sql);
  }

  /** The same for rows that only guarded writes and folds change: it sees every write that was acknowledged. */
  snapshotRead(sql: string): PointRead {
    return pointRead(this.#snapshot.connection, sql, () => this.#snapshot.begin());
  }

  /** Reads the journal in order; returns the id before its first row, and its last id. */
  journal(each: (entries: string) => void): readonly [number, number] {
    let [before, last] = [0, 0];
    for (const { id, entries } of this.#reads
      .prepare('SELECT * FROM api_key_journal ORDER BY id')
      .iterate()) {
      if (last === 0) before = Number(id) - 1;
      last = Number(id);
      each(String(entries));
    }
    return [before, last];
  }

  async query(sql: string, params: readonly Value[]): Promise<Record<string, Value>[]> {
    try {
      return (await this.#reader.request({ kind: 'query', sql, params })) as Record<string, Value>[];
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** Commits one transaction. Rejects when none of it was written. */
  async commit(batch: Omit<CommitRequest, 'id' | 'kind'>): Promise<GuardedResult[]> {
    this.#snapshot.pauseForCheckpoint();
    try {
      return (await this.#writer.request({ kind: 'commit', ...batch })) as GuardedResult[];
    } catch (error) {
      throw unavailable(error);
    } finally {
      // Before the caller learns that a row has changed.
      if (batch.guarded.length > 0 || batch.deferred.folds.length > 0) this.#snapshot.end();
      this.#snapshot.resume();
    }
  }

  /** Makes the writer thread write some of its counts of decisions; true when there are more. */
  async writeUsage(): Promise<boolean> {
    try {
      return (await this.#writer.request({ kind: 'usage' })) === true;
    } catch (error) {
      throw unavailable(error);
    }
  }

  async close(): Promise<void> {
    this.#reads.close();
    this.#snapshot.close();
    await this.#reader.request({ kind: 'close' });
    await this.#writer.request({ kind: 'close' });
    this.#lock.close();
  }
}

/** Takes an exclusive lock that the system releases however the process ends. */
export function lockFile(path: string): DatabaseSync {
  const lock = new DatabaseSync(path);
  try {
    lock.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
    return lock;
  } catch (error) {
    lock.close();
    const file = path.replace(/\.lock$/, '');
    throw new StartError(
      69,
      `STORE_URL: another process is using ${file}; the embedded store serves one`,
      error,
    );
  }
}

function migrate(path: string, chainKey: Uint8Array | undefined): void {
  // One of the migrations recreates a table that foreign keys refer to.
  const db = new DatabaseSync(path, { enableForeignKeyConstraints: false });
  try {
    db.function('place', { deterministic: true }, (hash) => rowIdFromHash(String(hash)) ?? null);
    addNoteFunctions(db, new Chain(chainKey));
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    const version = Number(db.prepare('PRAGMA user_version').get()?.user_version ?? 0);
    if (version > MIGRATIONS.length) {
      throw new StartError(78, `STORE_URL: ${path} was written by a newer apikeyd (schema ${version})`);
    }
    for (const [i, sql] of MIGRATIONS.entries()) {
      if (i >= version) db.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${i + 1}; COMMIT`);
    }
    addFilterColumns(db);
  } finally {
    db.close();
  }
}

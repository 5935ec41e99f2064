import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Worker } from 'node:worker_threads';
import { StartError } from '../store.ts';
import { unavailable } from './errors.ts';
import { MIGRATIONS } from './migrations.ts';
import type {
  CommitRequest,
  GuardedResult,
  QueryRequest,
  ThreadData,
  ThreadReply,
  ThreadRequest,
  Value,
} from './thread.ts';

// A request as the caller knows it: the thread adds the number.
type Unnumbered = Omit<CommitRequest, 'id'> | Omit<QueryRequest, 'id'> | { kind: 'close' };

// A clone runs sources, a package what was compiled from them.
const THREAD = new URL(import.meta.url.replace(/database(\.\w+)$/, 'thread$1'));

/** One thread and the answers it owes. */
class Thread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (v: unknown) => void; reject: (e: unknown) => void }>();
  #next = 0;
  #dead: unknown;

  constructor(data: ThreadData) {
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
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...message, id } as ThreadRequest);
    });
  }

  #die(error: unknown): void {
    this.#dead ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#dead);
    this.#waiting.clear();
  }
}

/** The file: a connection for point reads on the event loop, a thread that writes, a thread for long queries. */
export class SqliteDatabase {
  readonly #lock: DatabaseSync;
  readonly #reads: DatabaseSync;
  readonly #writer: Thread;
  readonly #reader: Thread;

  private constructor(path: string, processId: string, lock: DatabaseSync, chainKey: Uint8Array | undefined) {
    this.#lock = lock;
    this.#reads = new DatabaseSync(path, { readOnly: true });
    this.#writer = new Thread({ path, processId, chainKey, role: 'writer' });
    this.#reader = new Thread({ path, processId, chainKey, role: 'reader' });
  }

  /** @throws StartError when the file cannot be had, or another process has it. */
  static open(path: string, processId: string, chainKey?: Uint8Array): SqliteDatabase {
    let lock: DatabaseSync | undefined;
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      lock = lockFile(`${path}.lock`);
      migrate(path);
      return new SqliteDatabase(path, processId, lock, chainKey);
    } catch (error) {
      lock?.close();
      if (error instanceof StartError) throw error;
      throw new StartError(69, `STORE_URL: cannot open ${path}: ${(error as Error).message}`, error);
    }
  }

  /** A prepared point read on the event loop: microseconds, never a scan. */
  pointRead(sql: string): (...params: Value[]) => Record<string, Value> | undefined {
    const statement = this.#reads.prepare(sql);
    return (...params) => {
      try {
        return statement.get(...params) as Record<string, Value> | undefined;
      } catch (error) {
        throw unavailable(error);
      }
    };
  }

  async query(sql: string, params: readonly Value[]): Promise<Record<string, Value>[]> {
    try {
      return (await this.#reader.request({ kind: 'query', sql, params })) as Record<string, Value>[];
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** One transaction. Rejects when nothing of it was written. */
  async commit(batch: Omit<CommitRequest, 'id' | 'kind'>): Promise<GuardedResult[]> {
    try {
      return (await this.#writer.request({ kind: 'commit', ...batch })) as GuardedResult[];
    } catch (error) {
      throw unavailable(error);
    }
  }

  async close(): Promise<void> {
    this.#reads.close();
    await this.#reader.request({ kind: 'close' });
    await this.#writer.request({ kind: 'close' });
    this.#lock.close();
  }
}

/** Holds an exclusive lock that the system drops with the process, however it ends. */
function lockFile(path: string): DatabaseSync {
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

function migrate(path: string): void {
  const db = new DatabaseSync(path);
  try {
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    const version = Number(db.prepare('PRAGMA user_version').get()?.user_version ?? 0);
    if (version > MIGRATIONS.length) {
      throw new StartError(78, `STORE_URL: ${path} was written by a newer apikeyd (schema ${version})`);
    }
    for (const [i, sql] of MIGRATIONS.entries()) {
      if (i >= version) db.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${i + 1}; COMMIT`);
    }
  } finally {
    db.close();
  }
}

import { existsSync } from 'node:fs';
import { copyFile, link, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { synced } from '../../audit/synced.ts';
import type { CopyTold, PresentStore, StoreReplacement } from '../store.ts';
import { lockFile } from './database.ts';

const CHUNK_BYTES = 1_048_576;
/** The suffixes of the files that SQLite keeps beside a database. */
const BESIDE = ['-wal', '-shm', '-journal'] as const;

/** Holds the lock of the store until `close`, so that no server starts meanwhile. */
export class SqliteReplacement implements StoreReplacement {
  readonly copyUrl: string;
  readonly #path: string;
  readonly #copy: string;
  readonly #lock: DatabaseSync;

  private constructor(path: string, lock: DatabaseSync) {
    this.#path = path;
    this.#copy = `${path}.restoring`;
    this.copyUrl = `sqlite:${this.#copy}`;
    this.#lock = lock;
  }

  static async open(url: string): Promise<SqliteReplacement> {
    const path = url.replace(/^sqlite:(\/\/)?/, '');
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    return new SqliteReplacement(path, lockFile(`${path}.lock`));
  }

  present(): PresentStore | undefined {
    if (!existsSync(this.#path)) return undefined;
    try {
      const db = new DatabaseSync(this.#path, { readOnly: true });
      try {
        const read = db.prepare('SELECT value FROM api_key_meta WHERE id = ?');
        const number = (id: string) => Number(read.get(id)?.value ?? 0);
        const heads = db.prepare('SELECT process_id, sequence FROM api_key_chain_heads').all();
        const places = heads.map((head) => [String(head.process_id), Number(head.sequence)] as const);
        return {
          revision: number('revision'),
          longestLeaseMs: number('guard_lease_ms'),
          places: new Map(places),
        };
      } finally {
        db.close();
      }
    } catch {
      // A damaged store may be the reason for the restore.
      return undefined;
    }
  }

  async copyIn(file: string, told: CopyTold): Promise<void> {
    const found = await stat(file);
    if (!found.isFile()) throw new Error('it is no file');
    const store = await stat(this.#path).catch(() => undefined);
    if (store?.ino === found.ino && store.dev === found.dev) throw new Error('it is the store itself');
    await this.#discard();
    await copyBytes(file, this.#copy, found.size, told);
    // Exists when the file was copied by other means than `apikeyd backup`.
    if (existsSync(`${file}-wal`)) await copyFile(`${file}-wal`, `${this.#copy}-wal`);
    checkCopy(this.#copy);
  }

  /** The store's path exists at every moment: otherwise a starting server would create an empty store. */
  async put(keepAs: string): Promise<string | undefined> {
    const before = existsSync(this.#path) ? keepAs : undefined;
    if (before !== undefined) {
      intoOneFile(this.#path);
      // Only a damaged store has them; SQLite must not read them with the new file.
      for (const end of BESIDE)
        if (existsSync(`${this.#path}${end}`)) await rename(`${this.#path}${end}`, `${before}${end}`);
      await link(this.#path, before).catch(() => copyFile(this.#path, before));
    }
    intoOneFile(this.#copy);
    if (existsSync(`${this.#copy}-wal`)) throw new Error('the copy is not one file');
    await rename(this.#copy, this.#path);
    await synced(dirname(this.#path));
    return before;
  }

  async close(): Promise<void> {
    await this.#discard();
    this.#lock.close();
  }

  async #discard(): Promise<void> {
    for (const end of ['', '.lock', ...BESIDE]) await rm(`${this.#copy}${end}`, { force: true });
  }
}

async function copyBytes(from: string, to: string, size: number, told: CopyTold): Promise<void> {
  const [source, target] = [await open(from), await open(to, 'wx', 0o600)];
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    let done = 0;
    for (;;) {
      const { bytesRead } = await source.read(chunk, 0, CHUNK_BYTES, done);
      if (bytesRead === 0) break;
      for (let at = 0; at < bytesRead; )
        at += (await target.write(chunk, at, bytesRead - at, done + at)).bytesWritten;
      done += bytesRead;
      told(done, Math.max(done, size));
    }
    await target.sync();
  } finally {
    await source.close();
    await target.close();
  }
}

/** @throws Error where the file is damaged, or belongs to another program */
function checkCopy(path: string): void {
  const db = new DatabaseSync(path);
  try {
    const found = db.prepare('PRAGMA integrity_check(1)').get()?.integrity_check;
    if (found !== 'ok') throw new Error(`it is damaged: ${found}`);
    const tables = "SELECT count(*) AS n FROM sqlite_schema WHERE name IN ('api_keys', 'api_key_audit_log')";
    if (db.prepare(tables).get()?.n !== 2) throw new Error('it is no store of apikeyd');
  } finally {
    db.close();
  }
}

function intoOneFile(path: string): void {
  try {
    const db = new DatabaseSync(path);
    db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    db.close();
  } catch {
    // A damaged store is kept unchanged.
  }
}

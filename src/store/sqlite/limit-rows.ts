import { LRUCache } from 'lru-cache';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

const MAX_CLEAN_ROWS = 100_000;

/** A counter row: its value as the owner wrote it, and when it may be dropped. */
export interface LimitRow {
  readonly value: unknown;
  readonly expireTime: number;
}

export interface Dirty {
  readonly rows: ReadonlyMap<string, LimitRow | undefined>;
  /** key, JSON value or null, expire_time or null, in turn. */
  readonly flat: readonly Value[];
}

/**
 * The rows of lockouts in api_key_limits, changed in memory and written with the next batch of events. This process is
 * the only writer of the file, so memory is the truth; a row that is not in memory is read from the file.
 */
export class LimitRows {
  readonly #read: (key: string) => readonly Value[] | undefined;
  readonly #clean = new LRUCache<string, LimitRow>({ max: MAX_CLEAN_ROWS });
  #dirty = new Map<string, LimitRow | undefined>();
  #writing: ReadonlyMap<string, LimitRow | undefined> = new Map();

  constructor(database: SqliteDatabase) {
    this.#read = database.pointRead('SELECT value, expire_time FROM api_key_limits WHERE key = ?');
  }

  get(key: string): LimitRow | undefined {
    if (this.#dirty.has(key)) return this.#dirty.get(key);
    if (this.#writing.has(key)) return this.#writing.get(key);
    const clean = this.#clean.get(key);
    if (clean !== undefined) return clean;
    const row = this.#read(key);
    if (row === undefined) return undefined;
    const read = { value: JSON.parse(String(row[0])), expireTime: Number(row[1]) };
    this.#clean.set(key, read);
    return read;
  }

  /** Undefined deletes the row. */
  set(key: string, row: LimitRow | undefined): void {
    this.#dirty.set(key, row);
  }

  /** What the next transaction must write. */
  takeDirty(): Dirty {
    const rows = this.#dirty;
    this.#dirty = new Map();
    this.#writing = rows;
    const flat: Value[] = [];
    for (const [key, row] of rows) {
      flat.push(key, row === undefined ? null : JSON.stringify(row.value), row?.expireTime ?? null);
    }
    return { rows, flat };
  }

  written({ rows }: Dirty): void {
    this.#writing = new Map();
    for (const [key, row] of rows) {
      if (row === undefined) this.#clean.delete(key);
      else this.#clean.set(key, row);
    }
  }

  /** A failed transaction: what was not changed since is dirty again. */
  notWritten({ rows }: Dirty): void {
    this.#writing = new Map();
    for (const [key, row] of rows) if (!this.#dirty.has(key)) this.#dirty.set(key, row);
  }
}

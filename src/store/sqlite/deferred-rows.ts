import { LRUCache } from 'lru-cache';
import type { Counters } from '../../keys/quota.ts';
import type { SqliteDatabase } from './database.ts';
import type { DeferredPart, Value } from './thread-messages.ts';

/** Tables that nearly every call changes, with the statement for one row. The journal names a table by its index. */
export const DEFERRED_TABLES = [
  {
    name: 'api_key_limits',
    fold: 'INSERT INTO api_key_limits VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value',
  },
  {
    name: 'api_key_last_uses',
    fold: `INSERT INTO api_key_last_uses VALUES (?, ?)
      ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)`,
  },
] as const;

/**
 * waitingRows, journalEntries: so many of either begin a round that writes the tables. parts: a round's steps, at most
 * 256, each with neighbouring rows. keptRows: the capacity of the cache of unchanged rows.
 */
const BOUNDS = { waitingRows: 65_536, journalEntries: 262_144, parts: 256, keptRows: 20_000 };
/** The most journal rows that one transaction deletes. */
const FORGET_ROWS = 64;

type Bounds = typeof BOUNDS;

/** The reads that are needed of the database. */
type Source = Pick<SqliteDatabase, 'snapshotRead' | 'journal'>;

/**
 * Counters and last uses. With a million keys nearly every call changes a different row, so writing each row to its
 * table would cost a page per call. Instead a change is appended to a journal, in the transaction of the call's event,
 * and stays in memory; later a whole part of a table is written at once, in its order. This process is the only writer,
 * so memory is authoritative; after a crash the journal is read at the next start.
 */
export class DeferredRows {
  readonly quotas: DeferredTable<Counters>;
  readonly lastUses: DeferredTable<number>;
  readonly #tables: readonly DeferredTable<unknown>[];
  readonly #bounds: Bounds;
  #journalId: number;
  #entries = 0;
  /** The part that is written next; equal to `parts` while no round is under way. */
  #next: number;
  /** The last journal id when the round began. */
  #roundId = 0;
  #forgetTo = 0;
  #forgotten = 0;
  /** The transaction that take() returned and whose outcome is not known yet. */
  #inFlight: DeferredPart | undefined;

  /** @param bounds for tests */
  constructor(database: Source, bounds: Bounds = BOUNDS) {
    this.#bounds = bounds;
    this.#next = bounds.parts;
    const json = {
      toColumn: JSON.stringify,
      fromColumn: (value: Value) => JSON.parse(String(value)) as Counters,
    };
    const plain = { toColumn: Number, fromColumn: Number };
    this.quotas = new DeferredTable('api_key_limits', json, database, bounds);
    this.lastUses = new DeferredTable('api_key_last_uses', plain, database, bounds);
    this.#tables = [this.quotas, this.lastUses] as readonly DeferredTable<unknown>[];
    const [first, last] = database.journal((entries) => this.#recover(entries));
    this.#journalId = last;
    this.#forgotten = first;
  }

  #recover(entries: string): void {
    const flat = JSON.parse(entries) as unknown[];
    for (let i = 0; i < flat.length; i += 3)
      this.#tables[flat[i] as number]?.recover(flat[i + 1] as string, flat[i + 2]);
    this.#entries += flat.length / 3;
  }

  /** Returns the writes for the next transaction. `written` or `notWritten` must follow before the next take(). */
  take(): DeferredPart {
    if (this.#inFlight !== undefined) throw new Error('a transaction of counters is under way already');
    const flat: unknown[] = [];
    for (const [number, table] of this.#tables.entries()) table.takeDirty(number, flat);
    if (flat.length > 0) this.#journalId++;
    this.#entries += flat.length / 3;
    if (this.#next === this.#bounds.parts && this.#roundIsDue()) {
      this.#next = 0;
      this.#entries = 0;
      // The journal row of this transaction belongs to the next round: its changes join a part only once written.
      this.#roundId = flat.length > 0 ? this.#journalId - 1 : this.#journalId;
    }
    const folds: DeferredPart['folds'][number][] = [];
    if (this.#next < this.#bounds.parts)
      for (const [i, table] of this.#tables.entries())
        folds.push({ sql: DEFERRED_TABLES[i]?.fold ?? '', rows: table.beginFold(this.#next) });
    const forget = Math.min(this.#forgetTo, this.#forgotten + FORGET_ROWS);
    this.#inFlight = {
      journal: flat.length === 0 ? '' : JSON.stringify(flat),
      journalId: this.#journalId,
      folds,
      forget: forget > this.#forgotten ? forget : 0,
    };
    return this.#inFlight;
  }

  written(part: DeferredPart): void {
    const { folds, forget } = this.#landed(part);
    for (const table of this.#tables) table.written();
    if (folds.length > 0) {
      for (const table of this.#tables) table.endFold();
      this.#next++;
      if (this.#next === this.#bounds.parts) this.#forgetTo = this.#roundId;
    }
    if (forget > 0) this.#forgotten = forget;
  }

  /** After a failed transaction: its changes wait for the next one. */
  notWritten(part: DeferredPart): void {
    const { folds } = this.#landed(part);
    for (const table of this.#tables) table.notWritten();
    if (folds.length > 0) for (const table of this.#tables) table.abandonFold();
  }

  #landed(part: DeferredPart): DeferredPart {
    if (part !== this.#inFlight) throw new Error('this transaction of counters is not the one under way');
    this.#inFlight = undefined;
    return part;
  }

  #roundIsDue(): boolean {
    const rows = this.#tables.reduce((sum, table) => sum + table.waitingRows, 0);
    const { waitingRows, journalEntries } = this.#bounds;
    return rows > 0 && (rows >= waitingRows || this.#entries >= journalEntries);
  }
}

/** Converts a value to its column in the table; the journal holds it as JSON. */
interface Codec<T> {
  toColumn(value: T): Value;
  fromColumn(value: Value): T;
}

/** A row whose value is newer than its table. */
interface Row<T> {
  readonly key: string;
  value: T;
  /** Changed since the last take(). */
  dirty: boolean;
  /** In the journal, and in a part that waits to be written. */
  waiting: boolean;
}

/** One table: keys and values. */
export class DeferredTable<T> {
  readonly #codec: Codec<T>;
  readonly #read: (key: string) => readonly Value[] | undefined;
  readonly #rows = new Map<string, Row<T>>();
  /** Cached rows that equal their table: read often but unchanged, such as a used-up limit. Created on first use. */
  #kept: LRUCache<string, T & {}> | undefined;
  readonly #keptRows: number;
  readonly #parts: Row<T>[][];
  #dirty: Row<T>[] = [];
  #writing: Row<T>[] = [];
  #folding: Row<T>[] = [];
  #waitingRows = 0;

  constructor(
    name: (typeof DEFERRED_TABLES)[number]['name'],
    codec: Codec<T>,
    database: Source,
    { parts, keptRows }: Bounds,
  ) {
    this.#keptRows = keptRows;
    this.#parts = Array.from({ length: parts }, () => []);
    this.#codec = codec;
    this.#read = database.snapshotRead(`SELECT value FROM ${name} WHERE key = ?`);
  }

  get waitingRows(): number {
    return this.#waitingRows;
  }

  /** The value in memory; undefined when it must be read from the file. */
  recall(key: string): T | undefined {
    return this.#rows.get(key)?.value ?? this.#kept?.get(key);
  }

  get(key: string): T | undefined {
    const known = this.recall(key);
    if (known !== undefined) return known;
    const row = this.#read(key);
    return row === undefined ? undefined : this.#codec.fromColumn(row[0] ?? null);
  }

  /** Caches an unchanged value that will be read again. */
  keep(key: string, value: T & {}): void {
    if (this.#rows.has(key)) return;
    this.#kept ??= new LRUCache({ max: this.#keptRows });
    this.#kept.set(key, value);
  }

  set(key: string, value: T): void {
    let row = this.#rows.get(key);
    if (row === undefined) {
      row = { key, value, dirty: false, waiting: false };
      this.#rows.set(key, row);
      this.#kept?.delete(key);
    }
    row.value = value;
    if (row.dirty) return;
    row.dirty = true;
    this.#dirty.push(row);
  }

  recover(key: string, value: T): void {
    const row = this.#rows.get(key) ?? { key, value, dirty: false, waiting: false };
    row.value = value;
    this.#rows.set(key, row);
    this.#wait(row);
  }

  takeDirty(table: number, flat: unknown[]): void {
    this.#writing = this.#dirty;
    this.#dirty = [];
    for (const row of this.#writing) {
      row.dirty = false;
      flat.push(table, row.key, row.value);
    }
  }

  written(): void {
    for (const row of this.#writing) this.#wait(row);
    this.#writing = [];
  }

  notWritten(): void {
    for (const row of this.#writing) {
      if (row.dirty) continue;
      row.dirty = true;
      this.#dirty.push(row);
    }
    this.#writing = [];
  }

  /** Returns the rows of a part to write. Rows that change meanwhile also wait for the next round. */
  beginFold(part: number): Value[] {
    this.#folding = this.#parts[part] ?? [];
    this.#parts[part] = [];
    this.#waitingRows -= this.#folding.length;
    this.#folding.sort((a, b) => (a.key < b.key ? -1 : 1));
    const columns: Value[] = [];
    for (const row of this.#folding) {
      row.waiting = false;
      columns.push(row.key, this.#codec.toColumn(row.value));
    }
    return columns;
  }

  /** Runs after `written`; drops the rows that have not changed since beginFold. */
  endFold(): void {
    for (const row of this.#folding) {
      if (!row.waiting && !row.dirty) this.#rows.delete(row.key);
    }
    this.#folding = [];
  }

  abandonFold(): void {
    for (const row of this.#folding) this.#wait(row);
    this.#folding = [];
  }

  #wait(row: Row<T>): void {
    if (row.waiting) return;
    row.waiting = true;
    this.#waitingRows++;
    this.#parts[Math.floor((partOf(row.key) * this.#parts.length) / 256)]?.push(row);
  }
}

/** Maps a key to 0…255 in key order: a key id by its first two hex digits, another name by its first character. */
function partOf(key: string): number {
  const part = key.startsWith('uid-apikey-') ? Number.parseInt(key.slice(11, 13), 16) : Number.NaN;
  return Number.isNaN(part) ? key.charCodeAt(0) % 256 || 0 : part;
}

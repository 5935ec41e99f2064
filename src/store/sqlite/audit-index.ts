import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { type EventValues, placeOf } from '../../audit/fields.ts';

/** The number of events gathered before they are written to the look-up tables. */
const CHUNK = 16_384;
/** The fewest look-up rows that the transaction of a batch writes. */
const SLICE = 512;
const GROUP = 32;
const SORTED_AT_ONCE = 256;
const KEY_ID = placeOf('keyId');
const CLIENT_IP = placeOf('clientIp');

/** By key id or address: time and row in turn. */
type Rows = Map<string, number[]>;

/**
 * The look-up tables of the audit log, by key and by address. Writing their rows with each event would touch a page
 * per key, twenty times the work of the log itself (measured). So events are gathered, and a chunk is written in the
 * tables' order, a slice with each batch. Queries scan the events that are not in the tables yet (audit-log.ts).
 */
export class AuditIndexWriter {
  readonly #db: DatabaseSync;
  readonly #byKey: Table;
  readonly #byIp: Table;
  readonly #note: StatementSync;
  #gathered = 0;
  #lastRow = 0;
  /** The last event of the current chunk: once it is written, the tables hold every event up to this row. */
  #chunkEnd = 0;
  #added = 0;

  constructor(db: DatabaseSync) {
    this.#db = db;
    this.#byKey = new Table(db, 'api_key_audit_by_key');
    this.#byIp = new Table(db, 'api_key_audit_by_ip');
    this.#note = db.prepare("UPDATE api_key_meta SET value = ? WHERE id = 'audit_looked_up'");
    this.reset();
  }

  /** Gathers an event that was written just now. */
  add(row: number, time: number, values: EventValues): void {
    this.#gather(row, time, String(values[KEY_ID]), String(values[CLIENT_IP]));
    this.#added++;
  }

  /** Writes a slice, within the transaction of a batch. */
  step(): void {
    const rows = Math.max(SLICE, 4 * this.#added);
    this.#added = 0;
    if (this.#byKey.idle && this.#byIp.idle) {
      if (this.#gathered < CHUNK) return;
      this.#chunkEnd = this.#lastRow;
      this.#gathered = 0;
      this.#byKey.beginChunk();
      this.#byIp.beginChunk();
    }
    this.#byIp.write(rows - this.#byKey.write(rows));
    if (this.#byKey.idle && this.#byIp.idle) this.#note.run(this.#chunkEnd);
  }

  /** Reads the gathered events from the file: at the start, and after a failed transaction. */
  reset(): void {
    this.#byKey.clear();
    this.#byIp.clear();
    this.#gathered = 0;
    this.#added = 0;
    const rows = this.#db
      .prepare(
        `SELECT row, time, key_id, client_ip FROM api_key_audit_log
         WHERE row > (SELECT value FROM api_key_meta WHERE id = 'audit_looked_up') ORDER BY row`,
      )
      .iterate();
    for (const { row, time, key_id, client_ip } of rows)
      this.#gather(Number(row), Number(time), String(key_id), String(client_ip));
  }

  #gather(row: number, time: number, keyId: string, clientIp: string): void {
    this.#byKey.gather(keyId, time, row);
    this.#byIp.gather(clientIp, time, row);
    this.#gathered++;
    this.#lastRow = row;
  }
}

type Row = readonly [what: string, time: number, row: number];

class Table {
  readonly #one: StatementSync;
  readonly #group: StatementSync;
  #gathered: Rows = new Map();
  /** The unwritten rest of the current chunk. */
  #chunk: Iterator<Row> | undefined;

  constructor(db: DatabaseSync, name: string) {
    // IGNORE: after a crash, an unfinished chunk is written again.
    const insert = (rows: number) =>
      db.prepare(`INSERT OR IGNORE INTO ${name} VALUES ${Array(rows).fill('(?, ?, ?)').join(', ')}`);
    this.#one = insert(1);
    this.#group = insert(GROUP);
  }

  get idle(): boolean {
    return this.#chunk === undefined;
  }

  gather(what: string, time: number, row: number): void {
    if (what === '') return;
    const rows = this.#gathered.get(what);
    if (rows === undefined) this.#gathered.set(what, [time, row]);
    else rows.push(time, row);
  }

  beginChunk(): void {
    this.#chunk = rowsOf(this.#gathered);
    this.#gathered = new Map();
  }

  /** Writes at least this many rows, in whole groups, and returns how many; fewer at the end of the chunk. */
  write(most: number): number {
    let written = 0;
    while (written < most && this.#chunk !== undefined) {
      const group = this.#next(this.#chunk);
      if (group.length === GROUP) this.#group.run(...group.flat());
      else {
        for (const row of group) this.#one.run(...row);
        this.#chunk = undefined;
      }
      written += group.length;
    }
    return written;
  }

  /** The next group; an incomplete one ends the chunk. */
  #next(chunk: Iterator<Row>): Row[] {
    const group: Row[] = [];
    while (group.length < GROUP) {
      const { done, value } = chunk.next();
      if (done) break;
      group.push(value);
    }
    return group;
  }

  clear(): void {
    this.#gathered = new Map();
    this.#chunk = undefined;
  }
}

/** The rows in the table's order. */
function* rowsOf(gathered: Rows): Generator<Row, void> {
  for (const what of inOrder([...gathered.keys()])) {
    const rows = gathered.get(what) ?? [];
    for (let i = 0; i < rows.length; i += 2) yield [what, rows[i] ?? 0, rows[i + 1] ?? 0];
  }
}

/** Sorts distinct texts lazily: sorting all of them at once would delay a batch by 20 ms. */
function* inOrder(texts: readonly string[]): Generator<string, void> {
  if (texts.length <= SORTED_AT_ONCE) return yield* [...texts].sort();
  // A random pivot, so that no client can send addresses in an order that makes the recursion deep.
  const pivot = texts[Math.floor(Math.random() * texts.length)] as string;
  yield* inOrder(texts.filter((text) => text < pivot));
  yield pivot;
  yield* inOrder(texts.filter((text) => text > pivot));
}

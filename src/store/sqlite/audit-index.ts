import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { type EventValues, placeOf } from '../../audit/fields.ts';

/** Events that are gathered before they are written to the look-up tables. */
const CHUNK = 16_384;
/** Rows that one batch of events takes along at least. */
const SLICE = 512;
const GROUP = 32;
const SORTED_AT_ONCE = 256;
const KEY_ID = placeOf('keyId');
const CLIENT_IP = placeOf('clientIp');

/** time and row in turn, by what is looked up. */
type Rows = Map<string, number[]>;

/**
 * The look-up tables of the audit log, by key and by address. A row in each with every event would touch a page of
 * its own for each key, twenty times the work of the log itself (measured); so events are gathered, and a chunk is
 * written in the order of the tables, a slice with each batch. Queries scan what is not there yet (audit-log.ts).
 */
export class AuditIndexWriter {
  readonly #db: DatabaseSync;
  readonly #byKey: Table;
  readonly #byIp: Table;
  readonly #note: StatementSync;
  #gathered = 0;
  #lastRow = 0;
  /** The row up to which everything is in the tables once the chunk in hand is written. */
  #chunkEnd = 0;
  #added = 0;

  constructor(db: DatabaseSync) {
    this.#db = db;
    this.#byKey = new Table(db, 'api_key_audit_by_key');
    this.#byIp = new Table(db, 'api_key_audit_by_ip');
    this.#note = db.prepare("UPDATE api_key_meta SET value = ? WHERE id = 'audit_looked_up'");
    this.reset();
  }

  /** Of an event that was written just now. */
  add(row: number, time: number, values: EventValues): void {
    this.#gather(row, time, String(values[KEY_ID]), String(values[CLIENT_IP]));
    this.#added++;
  }

  /** Within the transaction of a batch: writes a slice. */
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

  /** What was in memory is not what is in the file: at the start, and after a transaction that failed. */
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
  /** What is left of the chunk in hand. */
  #chunk: Iterator<Row> | undefined;

  constructor(db: DatabaseSync, name: string) {
    // A chunk that a crash cut short is written again.
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

  /** Writes so many rows, up to the end of a group, and returns how many. */
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

  /** Fewer than a group at the end. */
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

/** In the table's order. */
function* rowsOf(gathered: Rows): Generator<Row, void> {
  for (const what of inOrder([...gathered.keys()])) {
    const rows = gathered.get(what) ?? [];
    for (let i = 0; i < rows.length; i += 2) yield [what, rows[i] ?? 0, rows[i + 1] ?? 0];
  }
}

/** Sorts as far as it is asked: to sort all of them at once would hold up a batch for 20 ms. All are different. */
function* inOrder(texts: readonly string[]): Generator<string, void> {
  if (texts.length <= SORTED_AT_ONCE) return yield* [...texts].sort();
  // By chance, so that nobody can send addresses in an order that makes this deep.
  const pivot = texts[Math.floor(Math.random() * texts.length)] as string;
  yield* inOrder(texts.filter((text) => text < pivot));
  yield pivot;
  yield* inOrder(texts.filter((text) => text > pivot));
}

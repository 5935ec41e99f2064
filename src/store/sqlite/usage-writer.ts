import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { type EventValues, parseEvent, placeOf } from '../../audit/fields.ts';
import { UsageCounter, type Use } from '../../audit/usage-counter.ts';

const [KEY_ID, OUTCOME] = [placeOf('keyId'), placeOf('outcome')];
const [DRY_RUN, COUNT] = [placeOf('dryRun'), placeOf('count')];
/** The most counts that one transaction writes, and the most events that one step reads from the log. */
const SLICE = 512;
const SCAN = 8_192;
/** The most counts in memory; beyond, they are dropped and counted again from the log. */
const MAX_COUNTS = 1_000_000;

/**
 * Counts decisions in the writer thread, and writes the counts in transactions of their own. Events that were written
 * before this thread started, by a crashed process or an earlier version, are read from the log.
 */
export class UsageWriter {
  readonly #db: DatabaseSync;
  readonly #write: StatementSync;
  readonly #note: StatementSync;
  readonly #scan: StatementSync;
  #counter = new UsageCounter();
  /** The events of the open transaction, and the row of the last one. */
  #staged: Use[] = [];
  #stagedRow = 0;
  /** Every event up to this row is counted, in the table or in memory. */
  #counted = 0;
  /** The log may hold events after #counted. */
  #behind = true;
  /** The end of a round that a crash cut short; 0 for none. */
  #cutShort = 0;

  constructor(db: DatabaseSync) {
    this.#db = db;
    this.#write = db.prepare(
      `INSERT INTO api_key_usage VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
       SET count = count + excluded.count, reaches = excluded.reaches WHERE reaches < excluded.reaches`,
    );
    this.#note = db.prepare('UPDATE api_key_meta SET value = ? WHERE id = ?');
    this.#scan = db.prepare(
      'SELECT row, time, event FROM api_key_audit_log WHERE row > ? AND row <= ? ORDER BY row LIMIT ?',
    );
    this.#startAnew();
  }

  /** Holds an event of the open transaction, which may still fail. */
  stage(row: number, time: number, values: EventValues): void {
    if (this.#behind) return;
    const [keyId, outcome] = [String(values[KEY_ID]), String(values[OUTCOME])];
    const count = Number(values[COUNT] ?? 0);
    this.#staged.push({ keyId, time, outcome, dryRun: values[DRY_RUN] === 1, count });
    this.#stagedRow = row;
  }

  committed(): void {
    if (this.#staged.length === 0) return;
    // Rows get consecutive numbers.
    const first = this.#stagedRow - this.#staged.length + 1;
    for (const [i, entry] of this.#staged.entries()) this.#counter.add(entry, first + i);
    this.#counted = this.#stagedRow;
    this.#staged = [];
    if (this.#counter.size > MAX_COUNTS) this.#startAnew();
  }

  rolledBack(): void {
    this.#staged = [];
  }

  /** Runs one transaction or one read of the log; true when there is more to do. */
  step(): boolean {
    if (this.#behind && this.#counter.inRound === false) {
      this.#catchUp();
      // A round that was cut short is repeated with the same end, so it must be read to that end first.
      if (this.#behind && this.#counted < this.#cutShort) return true;
    }
    const round = this.#counter.round();
    if (round === undefined) return this.#behind;
    const rows = round.left.slice(-SLICE);
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      this.#note.run(round.end, 'usage_round_end');
      for (const { keyId, hour, outcome, count } of rows)
        this.#write.run(keyId, hour, outcome, count, round.end);
      if (rows.length === round.left.length) this.#note.run(round.end, 'usage_counted');
      this.#db.exec('COMMIT');
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
    round.left.length -= rows.length;
    if (round.left.length === 0) this.#counter.finished();
    return round.left.length > 0 || this.#behind;
  }

  #startAnew(): void {
    const value = (id: string) =>
      Number(this.#db.prepare('SELECT value FROM api_key_meta WHERE id = ?').get(id)?.value ?? 0);
    this.#counter = new UsageCounter();
    this.#counted = value('usage_counted');
    const end = value('usage_round_end');
    this.#cutShort = end > this.#counted ? end : 0;
    this.#behind = true;
  }

  #catchUp(): void {
    const end = this.#cutShort > this.#counted ? this.#cutShort : Number.MAX_SAFE_INTEGER;
    let read = 0;
    for (const { row, time, event } of this.#scan.iterate(this.#counted, end, SCAN)) {
      this.#counter.add(parseEvent(Number(time), String(event)), Number(row));
      this.#counted = Number(row);
      read++;
    }
    // No event was written meanwhile: this thread is the only writer.
    if (read < SCAN && end === Number.MAX_SAFE_INTEGER) this.#behind = false;
    if (read < SCAN && end !== Number.MAX_SAFE_INTEGER) this.#counted = Math.max(this.#counted, end);
  }
}

import { eventText } from '../../audit/fields.ts';
import { GroupCommit } from '../../audit/group-commit.ts';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type { Clock } from '../../keys/ports/clock.ts';
import type { SqliteDatabase } from './database.ts';
import type { DeferredRows } from './deferred-rows.ts';
import { unavailable } from './errors.ts';
import type { GuardedResult, GuardedWrite, Statement, Value, WriteResult } from './thread-messages.ts';

const MAX_QUEUED = 20_000;
const MAX_BATCH = 2_000;
const WAIT_LIMIT_MS = 5_000;

type Item = AuditEntry | PendingWrite;

class PendingWrite {
  readonly write: GuardedWrite;
  result: GuardedResult | undefined;

  constructor(write: GuardedWrite) {
    this.write = write;
  }
}

/** The one path for writes of the embedded store: events, changes and counters share a transaction. */
export class Committer {
  readonly #database: SqliteDatabase;
  readonly #deferred: DeferredRows;
  readonly #group: GroupCommit<Item>;
  readonly #beginChain: () => Promise<ChainBeginning>;
  #begun = false;

  constructor(
    database: SqliteDatabase,
    deferred: DeferredRows,
    clock: Clock,
    beginChain: () => Promise<ChainBeginning>,
    written?: (items: number, ms: number) => void,
  ) {
    this.#beginChain = beginChain;
    this.#database = database;
    this.#deferred = deferred;
    this.#group = new GroupCommit({
      write: (batch) => this.#commit(batch),
      maxQueued: MAX_QUEUED,
      maxBatch: MAX_BATCH,
      waitLimitMs: WAIT_LIMIT_MS,
      clock,
      written,
    });
  }

  /** The events and writes that are not durable yet, and their limit. */
  get backlog(): { readonly waiting: number; readonly limit: number } {
    return { waiting: this.#group.pending, limit: MAX_QUEUED };
  }

  record(entry: AuditEntry): Promise<void> {
    return this.#group.add(entry);
  }

  /** Commits all statements and the event, or none of them. */
  async write(statements: readonly Statement[], entry?: AuditEntry): Promise<WriteResult> {
    const pending = new PendingWrite({ statements, event: entry === undefined ? '' : lineOf(entry) });
    await this.#group.add(pending);
    const { result } = pending;
    if (result === undefined) throw unavailable('a write without a result');
    if (result.outcome === 'FAILED') throw new Error(result.message);
    return result;
  }

  /** Runs a DELETE; returns the number of deleted rows. */
  async delete(sql: string, params: readonly Value[]): Promise<number> {
    const result = await this.write([
      { sql, params },
      { sql: 'SELECT changes() AS n', params: [] },
    ]);
    return result.outcome === 'DONE' ? Number(result.rows[1]?.n) : 0;
  }

  drained(): Promise<void> {
    return this.#group.drained();
  }

  /** Before the first events of a chain: inserts its opening events in front, and returns the writes of their notes. */
  async #beginning(lines: string[], pending: readonly PendingWrite[]): Promise<GuardedWrite[]> {
    const events = lines.length > 0 || pending.some(({ write }) => write.event !== '');
    if (this.#begun || !events) return [];
    const { entries, notes } = await this.#beginChain();
    lines.unshift(...entries.map(lineOf));
    return notes.length === 0 ? [] : [{ statements: notes, event: '' }];
  }

  async #commit(batch: Item[]): Promise<void> {
    const lines: string[] = [];
    const pending: PendingWrite[] = [];
    for (const item of batch) {
      if (item instanceof PendingWrite) pending.push(item);
      else lines.push(lineOf(item));
    }
    const beginning = await this.#beginning(lines, pending);
    const deferred = this.#deferred.take();
    try {
      const guarded = [...pending.map(({ write }) => write), ...beginning];
      const results = await this.#database.commit({
        events: lines.join('\n'),
        guarded,
        deferred,
      });
      for (const [i, item] of pending.entries()) item.result = results[i];
      this.#deferred.written(deferred);
      this.#begun ||= lines.length > 0 || pending.some(({ write }) => write.event !== '');
    } catch (error) {
      this.#deferred.notWritten(deferred);
      throw error;
    }
  }
}

/** The opening of a chain: events that name the ends of other chains, and the notes that those are named. */
export interface ChainBeginning {
  readonly entries: readonly AuditEntry[];
  readonly notes: readonly Statement[];
}

function lineOf(entry: AuditEntry): string {
  return `${entry.time}${eventText(entry)}`;
}

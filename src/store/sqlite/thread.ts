/**
 * The two threads of the embedded store. The writer owns the only writing connection and commits each batch in one
 * transaction with one fsync, off the event loop. The reader runs queries that may take long.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';
import { Chain, GENESIS } from '../../audit/chain.ts';
import { valuesOf } from '../../audit/fields.ts';
import { AuditIndexWriter } from './audit-index.ts';
import { eventInsert } from './audit-rows.ts';
import { NOTE_HEAD, noteOf } from './chain-notes.ts';
import type {
  CommitRequest,
  DeferredPart,
  GuardedResult,
  GuardedWrite,
  ThreadData,
  ThreadReply,
  ThreadRequest,
  Value,
} from './thread-messages.ts';
import { UsageWriter } from './usage-writer.ts';

const { path, role, processId, chainKey } = workerData as ThreadData;
const db = new DatabaseSync(path, { readOnly: role === 'reader' });
const statements = new Map<string, StatementSync>();
const chain = new Chain(chainKey);
let sequence = 0;
let head = GENESIS;
const GROUP = 16;
const INSERT_GROUP = eventInsert(GROUP);
const INSERT_ONE = eventInsert(1);

if (role === 'writer')
  db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
db.exec('PRAGMA busy_timeout = 5000');
const lookUps = role === 'writer' ? new AuditIndexWriter(db) : undefined;
const usage = role === 'writer' ? new UsageWriter(db) : undefined;

function prepare(sql: string): StatementSync {
  let statement = statements.get(sql);
  if (statement === undefined) {
    statement = db.prepare(sql);
    statements.set(sql, statement);
  }
  return statement;
}

/** Inserts most events in groups: a fifth less work than one by one (measured). */
function insertEvents(text: string): void {
  if (text === '') return;
  const lines = text.split('\n');
  let at = 0;
  for (const [size, statement] of [
    [GROUP, INSERT_GROUP],
    [1, INSERT_ONE],
  ] as const) {
    for (; at + size <= lines.length; at += size) {
      const params: Value[] = [];
      for (let i = at; i < at + size; i++) pushRow(params, lines[i] as string);
      const { lastInsertRowid } = prepare(statement).run(...params);
      // The rows of one statement get consecutive numbers.
      for (let i = 0; i < size; i++) {
        const [time, event] = [params[5 * i + 3] as number, params[5 * i + 4] as string];
        const row = Number(lastInsertRowid) - size + 1 + i;
        const values = valuesOf(event);
        lookUps?.add(row, time, values);
        usage?.stage(row, time, values);
      }
    }
  }
}

function pushRow(params: Value[], line: string): void {
  sequence++;
  const split = line.indexOf('[');
  const time = Number(line.slice(0, split));
  const event = line.slice(split);
  head = chain.next(head, { id: `${processId}-${sequence}`, processId, sequence, servedBy: '' }, time, event);
  params.push(processId, sequence, head, time, event);
}

/** SQLite errors that fail the whole batch: no memory, I/O, damaged, full, not a database. */
const OF_ALL: ReadonlySet<number> = new Set([7, 10, 11, 13, 26]);

function runGuarded({ statements: steps, event }: GuardedWrite): GuardedResult {
  const before = { sequence, head };
  db.exec('SAVEPOINT guarded');
  const undo = () => {
    ({ sequence, head } = before);
    db.exec('ROLLBACK TO guarded; RELEASE guarded');
  };
  const rows: (Record<string, Value> | undefined)[] = [];
  try {
    for (const { sql, params, mustReturn } of steps) {
      const row = prepare(sql).get(...params) as Record<string, Value> | undefined;
      if (mustReturn === true && row === undefined) {
        undo();
        return { outcome: 'GUARD_FAILED' };
      }
      rows.push(row);
    }
  } catch (error) {
    const { message, errcode = 0 } = error as Error & { errcode?: number };
    if (!db.isTransaction || OF_ALL.has(errcode & 0xff)) throw error;
    undo();
    const unique = /^UNIQUE constraint failed: ([\w.]+)/.exec(message);
    // Only this write fails: the others of the batch belong to other callers.
    return unique?.[1] === undefined
      ? { outcome: 'FAILED', message }
      : { outcome: 'NOT_UNIQUE', what: unique[1] };
  }
  insertEvents(event);
  db.exec('RELEASE guarded');
  return { outcome: 'DONE', rows };
}

/** Updates the note of the chain's end with every batch, so that no last row can be removed unnoticed. */
function noteHead(closed: boolean): void {
  prepare(NOTE_HEAD).run(...noteOf(chain, { processId, sequence, hash: head, closed }));
}

/** Writes changes of counters and last uses: to the journal at once, to their tables one part at a time. */
function defer({ journal, journalId, folds, forget }: DeferredPart): void {
  if (journal !== '') prepare('INSERT INTO api_key_journal VALUES (?, ?)').run(journalId, journal);
  for (const { sql, rows } of folds) {
    const statement = prepare(sql);
    for (let at = 0; at < rows.length; at += 2) statement.run(rows[at] ?? null, rows[at + 1] ?? null);
  }
  if (forget > 0) prepare('DELETE FROM api_key_journal WHERE id <= ?').run(forget);
}

function commit({ events, guarded, deferred }: CommitRequest): GuardedResult[] {
  const before = { sequence, head };
  db.exec('BEGIN IMMEDIATE');
  try {
    insertEvents(events);
    const results = guarded.map(runGuarded);
    defer(deferred);
    if (sequence !== before.sequence) noteHead(false);
    lookUps?.step();
    db.exec('COMMIT');
    usage?.committed();
    return results;
  } catch (error) {
    usage?.rolledBack();
    ({ sequence, head } = before);
    // SQLite may have ended the transaction at a failed COMMIT.
    if (db.isTransaction) db.exec('ROLLBACK');
    lookUps?.reset();
    throw error;
  }
}

parentPort?.on('message', (request: ThreadRequest) => {
  try {
    let result: unknown;
    if (request.kind === 'commit') result = commit(request);
    else if (request.kind === 'usage') result = usage?.step();
    else if (request.kind === 'query') result = prepare(request.sql).all(...request.params);
    else {
      if (role === 'writer' && sequence > 0) noteHead(true);
      db.close();
    }
    parentPort?.postMessage({ id: request.id, result } satisfies ThreadReply);
    if (request.kind === 'close') parentPort?.close();
  } catch (error) {
    const { message, errcode } = error as Error & { errcode?: number };
    parentPort?.postMessage({ id: request.id, error: { message, errcode } } satisfies ThreadReply);
  }
});

import { columnOf, equalities } from '../../audit/fields.ts';
import { GapReporter } from '../../audit/gap-reporter.ts';
import type { AuditEntry, AuditFilter, AuditLog, AuditRecord } from '../../keys/ports/audit.ts';
import type { Clock } from '../../keys/ports/clock.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { pagedBy, startOf } from '../paging.ts';
import type { AuditBacklog } from '../store.ts';
import { RECORD_COLUMNS, toRecord } from './audit-rows.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

const LOOKED_UP = "(SELECT value FROM api_key_meta WHERE id = 'audit_looked_up')";

export class SqliteAuditLog implements AuditLog {
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;
  readonly #gaps: GapReporter;

  constructor(database: SqliteDatabase, committer: Committer, clock: Clock) {
    this.#database = database;
    this.#committer = committer;
    this.#gaps = new GapReporter((entry) => committer.record(entry), clock);
  }

  record(entry: AuditEntry): Promise<void> {
    return this.#committer.record(entry);
  }

  countRefused(calls: number): void {
    this.#gaps.count(calls);
  }

  get backlog(): AuditBacklog {
    return { ...this.#committer.backlog, unrecorded: this.#gaps.total };
  }

  flushGaps(): Promise<void> {
    return this.#gaps.flush();
  }

  async list(filter: AuditFilter, page: Page): Promise<Paged<AuditRecord>> {
    const most = page.size + 1;
    const looked = lookUpOf(filter);
    if (looked === undefined) {
      const all = newest('api_key_audit_log AS log', 'log', '1', filter, page);
      return this.#page(all.sql, [...all.params, most], page);
    }
    const { table, column, value } = looked;
    const source = `${table} AS it JOIN api_key_audit_log AS log USING (row)`;
    const through = newest(source, 'it', `it.${column} = ? AND it.row <= ${LOOKED_UP}`, filter, page);
    // The newest events are not in the look-up table yet: they are scanned in the order of rows.
    const scanned = `log.row > ${LOOKED_UP}`;
    const tail = newest('api_key_audit_log AS log NOT INDEXED', 'log', scanned, filter, page);
    const sql = `SELECT * FROM (${through.sql}) UNION ALL SELECT * FROM (${tail.sql})
      ORDER BY time DESC, row DESC LIMIT ?`;
    return this.#page(sql, [value, ...through.params, most, ...tail.params, most, most], page);
  }

  async #page(sql: string, params: readonly Value[], { size }: Page): Promise<Paged<AuditRecord>> {
    const paged = pagedBy(await this.#database.query(sql, params), size, (row) => [
      Number(row.time),
      Number(row.row),
    ]);
    return { items: paged.items.map(toRecord), next: paged.next };
  }

  async count(): Promise<number> {
    const [row] = await this.#database.query('SELECT count(*) AS n FROM api_key_audit_log', []);
    return Number(row?.n);
  }

  async countByOutcome(since: number): Promise<ReadonlyMap<string, number>> {
    const rows = await this.#database.query(
      'SELECT outcome, count(*) AS n FROM api_key_audit_log WHERE time >= ? GROUP BY outcome',
      [since],
    );
    return new Map(rows.map((row) => [String(row.outcome), Number(row.n)]));
  }
}

/** Selects the newest matching events among those that satisfy `first`, ordered by time and row of table `by`. */
function newest(from: string, by: string, first: string, filter: AuditFilter, { after }: Page) {
  const where = [first];
  const params: Value[] = [];
  const add = (sql: string, value: Value | undefined) => {
    if (value === undefined) return;
    where.push(sql);
    params.push(value);
  };
  for (const { name, value } of equalities(filter)) add(`log.${columnOf(name)} = ?`, value);
  add(`${by}.time >= ?`, filter.startTime);
  add(`${by}.time < ?`, filter.endTime);
  if (after !== undefined) {
    where.push(`(${by}.time, ${by}.row) < (?, ?)`);
    params.push(...startOf(after, 'number', 'number'));
  }
  const columns = RECORD_COLUMNS.map((name) => `log.${name}`).join(', ');
  const sql = `SELECT ${columns} FROM ${from} WHERE ${where.join(' AND ')} ORDER BY ${by}.time DESC, ${by}.row DESC LIMIT ?`;
  return { sql, params };
}

/** The look-up table that serves the filter, if there is one. */
function lookUpOf({ keyId, clientIp }: AuditFilter) {
  if (keyId !== undefined) return { table: 'api_key_audit_by_key', column: 'key_id', value: keyId };
  if (clientIp !== undefined) return { table: 'api_key_audit_by_ip', column: 'client_ip', value: clientIp };
  return undefined;
}

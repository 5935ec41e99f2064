import { GapReporter } from '../../audit/gap-reporter.ts';
import type {
  AuditEntry,
  AuditFilter,
  AuditLog,
  AuditRecord,
  ChainHead,
  ChainPrefix,
  Clock,
  Page,
  Paged,
} from '../../keys/ports.ts';
import { pagedBy } from '../paging.ts';
import { toRecord } from './audit-rows.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import type { Value } from './thread.ts';

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

  flushGaps(): Promise<void> {
    return this.#gaps.flush();
  }

  async list(filter: AuditFilter, page: Page): Promise<Paged<AuditRecord>> {
    const where: string[] = [];
    const params: Value[] = [];
    const add = (sql: string, ...values: Value[]) => {
      where.push(sql);
      params.push(...values);
    };
    if (filter.keyId !== undefined) add('key_id = ?', filter.keyId);
    if (filter.callerKeyId !== undefined) add('caller_key_id = ?', filter.callerKeyId);
    if (filter.method !== undefined) add('method = ?', filter.method);
    if (filter.outcome !== undefined) add('outcome = ?', filter.outcome);
    if (filter.clientIp !== undefined) add('client_ip = ?', filter.clientIp);
    if (filter.secretSlot !== undefined) add('secret_slot = ?', filter.secretSlot);
    if (filter.startTime !== undefined) add('time >= ?', filter.startTime);
    if (filter.endTime !== undefined) add('time < ?', filter.endTime);
    if (page.after !== undefined) add('(time, row) < (?, ?)', ...page.after);
    const rows = await this.#database.query(
      `SELECT * FROM api_key_audit_log ${where.length > 0 ? `WHERE ${where.join(' AND ')}` : ''}
       ORDER BY time DESC, row DESC LIMIT ?`,
      [...params, page.size + 1],
    );
    const paged = pagedBy(rows, page.size, (row) => [Number(row.time), Number(row.row)]);
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

  async readChains(page: Page): Promise<Paged<AuditRecord>> {
    // The file serves one process after the other, so the order of writing is that of every chain.
    const rows = await this.#database.query(
      'SELECT * FROM api_key_audit_log WHERE row > ? ORDER BY row LIMIT ?',
      [...(page.after ?? [0]), page.size + 1],
    );
    const paged = pagedBy(rows, page.size, (row) => [Number(row.row)]);
    return { items: paged.items.map(toRecord), next: paged.next };
  }

  async heads(): Promise<readonly ChainHead[]> {
    const rows = await this.#database.query('SELECT * FROM api_key_chain_heads', []);
    return rows.map((row) => ({
      processId: String(row.process_id),
      sequence: Number(row.sequence),
      hash: String(row.hash),
      closed: row.closed === 1,
      ...(row.cut === null ? {} : { cut: JSON.parse(String(row.cut)) }),
    }));
  }

  async expiredPrefixes(time: number, limit: number): Promise<readonly ChainPrefix[]> {
    const rows = await this.#database.query(
      'SELECT process_id, sequence, hash, time FROM api_key_audit_log ORDER BY row LIMIT ?',
      [limit],
    );
    const end = rows.findIndex((row) => Number(row.time) >= time);
    const prefixes = new Map<string, ChainPrefix>();
    for (const row of end < 0 ? rows : rows.slice(0, end)) {
      const processId = String(row.process_id);
      const events = (prefixes.get(processId)?.events ?? 0) + 1;
      prefixes.set(processId, { processId, sequence: Number(row.sequence), hash: String(row.hash), events });
    }
    return [...prefixes.values()];
  }

  async cut({ processId, sequence, hash, events }: ChainPrefix, token: string): Promise<void> {
    const note = 'UPDATE api_key_chain_heads SET cut = ? WHERE process_id = ?';
    // The beginning of the log is the beginning of its oldest chain, so only what goes is looked at.
    const drop = `DELETE FROM api_key_audit_log WHERE process_id = ? AND sequence <= ?
      AND row <= (SELECT max(row) FROM (SELECT row FROM api_key_audit_log ORDER BY row LIMIT ?))`;
    await this.#committer.write([
      { sql: note, params: [JSON.stringify({ sequence, hash, token }), processId] },
      { sql: drop, params: [processId, sequence, events] },
    ]);
  }
}

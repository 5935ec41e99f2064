import type { Chain } from '../../audit/chain.ts';
import { checkpointEntries, unlisted } from '../../audit/checkpoint.ts';
import { isCanonical } from '../../audit/fields.ts';
import type { ChainHead, ChainLog, ChainPlace, ChainPrefix, ChainRow } from '../../keys/ports/audit.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { pagedBy } from '../paging.ts';
import { cutStatement, listedStatement, toHead } from './chain-notes.ts';
import type { ChainBeginning, Committer } from './committer.ts';
import type { PointRead, SqliteDatabase } from './database.ts';
import type { Value } from './thread-messages.ts';

/** The last row in the look-up tables; without a note of it, every row counts as looked up. */
const LOOKED_UP =
  "coalesce((SELECT value FROM api_key_meta WHERE id = 'audit_looked_up'), 9223372036854775807)";
const PARTS = 500;

const TABLES = [
  ['api_key_audit_by_key', 'key_id'],
  ['api_key_audit_by_ip', 'client_ip'],
] as const;

// Numbers as text: a forged number too large for JavaScript must be reported, not make the query fail.
const READ = `SELECT CAST(row AS TEXT) AS row, process_id, CAST(sequence AS TEXT) AS sequence, hash,
    CAST(time AS TEXT) AS time, event,
    CASE WHEN row <= ${LOOKED_UP} AND json_valid(event) THEN ${TABLES.map(
      ([table, column]) => `(${column} <> '' AND NOT EXISTS (SELECT 1 FROM ${table} AS it
        WHERE it.${column} = log.${column} AND it.time = log.time AND it.row = log.row))`,
    ).join(' OR ')} ELSE 0 END AS unlisted
  FROM api_key_audit_log AS log`;

/** The chains in the file. One process after the other writes it, so each chain is in the order of the rows. */
export class SqliteChainLog implements ChainLog {
  readonly processId: string;
  readonly order = 'WRITTEN';
  readonly #database: SqliteDatabase;
  readonly #committer: Committer;
  readonly #chain: Chain;
  readonly #ownHead: PointRead;

  constructor(database: SqliteDatabase, committer: Committer, chain: Chain, processId: string) {
    this.processId = processId;
    this.#database = database;
    this.#committer = committer;
    this.#chain = chain;
    this.#ownHead = database.pointRead('SELECT sequence, hash FROM api_key_chain_heads WHERE process_id = ?');
  }

  async readChains({ size, after }: Page): Promise<Paged<ChainRow>> {
    const where = after === undefined ? '' : 'WHERE row > CAST(? AS INTEGER)';
    const sql = `${READ} ${where} ORDER BY log.row LIMIT ?`;
    const rows = await this.#database.query(sql, [...(after ?? []), size + 1]);
    const paged = pagedBy(rows, size, (row) => [String(row.row)]);
    return { items: paged.items.map(toChainRow), next: paged.next };
  }

  async checkLists(after: Page['after']) {
    const [table = TABLES[0][0], ...place] = after ?? [];
    const at = TABLES.findIndex(([name]) => name === table);
    const [name, column] = TABLES[at] ?? TABLES[0];
    const where = place.length === 0 ? '' : `WHERE (${column}, time, row) > (?, ?, CAST(? AS INTEGER))`;
    const sql = `SELECT ${column} AS what, time, CAST(row AS TEXT) AS row, EXISTS (SELECT 1 FROM api_key_audit_log AS log
        WHERE log.row = it.row AND CASE WHEN json_valid(log.event)
          THEN log.time <> it.time OR log.${column} <> it.${column} ELSE 1 END) AS stray
      FROM ${name} AS it ${where} ORDER BY ${column}, time, row LIMIT ${PARTS}`;
    const rows = await this.#database.query(sql, place as Value[]);
    const last = rows.at(-1);
    const stray = rows.some((row) => row.stray === 1);
    const rest = TABLES[at + 1];
    if (last !== undefined)
      return { stray, next: [name, String(last.what), Number(last.time), String(last.row)] };
    return { stray, next: rest === undefined ? undefined : [rest[0]] };
  }

  async rebuildLists(): Promise<number> {
    const set =
      "INSERT OR REPLACE INTO api_key_meta SELECT 'audit_looked_up', coalesce(max(row), 0) FROM api_key_audit_log";
    const sql = [
      ...TABLES.flatMap(([table, column]) => [
        `DELETE FROM ${table}`,
        `INSERT INTO ${table} SELECT ${column}, time, row FROM api_key_audit_log WHERE ${column} <> '' ORDER BY ${column}, time, row`,
      ]),
      set,
      'SELECT count(*) AS n FROM api_key_audit_log',
    ];
    const statements = sql.map((text) => ({ sql: text, params: [] }));
    // Not through the committer, which gives up writes that take long.
    const deferred = { journal: '', journalId: 0, folds: [], forget: 0 };
    const guarded = [{ statements, event: '' }];
    const [result] = await this.#database.commit({ events: '', guarded, deferred });
    if (result?.outcome !== 'DONE')
      throw new Error(`the look-up tables cannot be built: ${JSON.stringify(result)}`);
    return Number(result.rows.at(-1)?.n);
  }

  async hashesAt(processId: string, sequences: readonly number[]): Promise<ReadonlyMap<number, string>> {
    const places = sequences.map(() => '?').join(', ');
    const sql = `SELECT sequence, hash FROM api_key_audit_log WHERE process_id = ? AND sequence IN (${places})`;
    const rows = await this.#database.query(sql, [processId, ...sequences]);
    return new Map(rows.map(({ sequence, hash }) => [Number(sequence), String(hash)]));
  }

  heads(): Promise<readonly ChainHead[]> {
    return readHeads(this.#database);
  }

  async ownHead(): Promise<ChainPlace | undefined> {
    const [sequence, hash] = this.#ownHead(this.processId) ?? [];
    return hash === undefined
      ? undefined
      : { processId: this.processId, sequence: Number(sequence), hash: String(hash) };
  }

  async noteListed(heads: readonly ChainPlace[]): Promise<void> {
    await this.#committer.write(heads.map((head) => listedStatement(this.#chain, head)));
  }

  async expiredPrefixes(time: number, limit: number): Promise<readonly ChainPrefix[]> {
    const rows = await this.#database.query(
      // Only events that the counts of uses include.
      `SELECT process_id, sequence, hash, time FROM api_key_audit_log
       WHERE row <= (SELECT value FROM api_key_meta WHERE id = 'usage_counted') ORDER BY row LIMIT ?`,
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

  async noteCut(place: ChainPlace, time: number): Promise<void> {
    await this.#committer.write([cutStatement(this.#chain, place, time)]);
  }

  async cut(prefix: ChainPrefix, time: number): Promise<void> {
    const { processId, sequence, events } = prefix;
    // The log begins with its oldest chain, so the query reads only the rows that it deletes.
    const gone = `WHERE process_id = ? AND sequence <= ?
      AND row <= (SELECT max(row) FROM (SELECT row FROM api_key_audit_log ORDER BY row LIMIT ?))`;
    const params = [processId, sequence, events];
    const dropLookUps = (column: string, table: string) =>
      `DELETE FROM ${table} WHERE (${column}, time, row) IN (SELECT ${column}, time, row FROM api_key_audit_log ${gone})`;
    await this.#committer.write([
      cutStatement(this.#chain, prefix, time),
      ...TABLES.map(([table, column]) => ({ sql: dropLookUps(column, table), params })),
      { sql: `DELETE FROM api_key_audit_log ${gone}`, params },
    ]);
  }
}

async function readHeads(database: SqliteDatabase): Promise<ChainHead[]> {
  const rows = await database.query(
    `SELECT process_id, CAST(sequence AS TEXT) AS sequence, hash, CAST(closed AS TEXT) AS closed, cut, mac,
      CAST(older AS TEXT) AS older, listed FROM api_key_chain_heads`,
    [],
  );
  return rows.map(toHead);
}

/** The first events of a chain: they name the ends of the chains before it. */
export async function chainBeginning(
  database: SqliteDatabase,
  chain: Chain,
  processId: string,
  time: number,
): Promise<ChainBeginning> {
  const heads = unlisted(chain, await readHeads(database), processId);
  return {
    entries: checkpointEntries('heads', heads, time),
    notes: heads.map((head) => listedStatement(chain, head)),
  };
}

function toChainRow(row: Record<string, Value>): ChainRow {
  const [processId, text] = [String(row.process_id), String(row.event)];
  const [sequence, time] = [Number(row.sequence), Number(row.time)];
  const changed = String(sequence) !== row.sequence || String(time) !== row.time || !isCanonical(text);
  return {
    id: `${processId}-${sequence}`,
    processId,
    sequence,
    servedBy: '',
    hash: String(row.hash),
    time,
    text,
    cursor: [String(row.row)],
    ...(changed ? { flaw: 'CHANGED' as const } : row.unlisted === 1 ? { flaw: 'UNLISTED' as const } : {}),
  };
}

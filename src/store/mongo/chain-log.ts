import type { Filter } from 'mongodb';
import type { Chain } from '../../audit/chain.ts';
import { eventText } from '../../audit/fields.ts';
import type { ChainHead, ChainLog, ChainPlace, ChainPrefix, ChainRow } from '../../keys/ports/audit.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { pagedBy } from '../paging.ts';
import type { MongoAuditLog } from './audit-log.ts';
import { cutFields, noteFields, noteId, noteListed, readHeads } from './chain-notes.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';
import { INDEXES } from './migrations.ts';
import { type AuditDoc, toEventDoc, toRecord } from './rows.ts';

/** The chains in the database, each read in the order of its sequence. */
export class MongoChainLog implements ChainLog {
  readonly processId: string;
  readonly order = 'CHAINS';
  readonly #database: MongoDatabase;
  readonly #audit: MongoAuditLog;
  readonly #chain: Chain;
  readonly #reachOf: (processId: string) => Promise<number>;

  /** @param reachOf the place up to which a chain's decisions are counted: later rows are not deleted */
  constructor(
    database: MongoDatabase,
    audit: MongoAuditLog,
    chain: Chain,
    reachOf: (processId: string) => Promise<number>,
  ) {
    this.#reachOf = reachOf;
    this.processId = audit.events.processId;
    this.#database = database;
    this.#audit = audit;
    this.#chain = chain;
  }

  /** Reads rows by process and sequence, the order of the unique index; then documents without a process. */
  readChains(page: Page): Promise<Paged<ChainRow>> {
    return guarded(async (limits) => {
      const read = (where: Filter<AuditDoc>, size: number) => {
        const order = { process_id: 1, sequence: 1, _id: 1 } as const;
        return this.#database.audit.find(where, limits).sort(order).limit(size).toArray();
      };
      const wanted = page.size + 1;
      const docs: AuditDoc[] = [];
      const [process, sequence, id] = page.after ?? [];
      if (process !== undefined) {
        const [process_id, from] = [String(process), Number(sequence)];
        // A chain has no gaps, so its next page lies in this range: less to sort for a server that ignores the index.
        const range = { process_id, sequence: { $gte: from, $lte: from + wanted } };
        const near = await read(range, wanted + 1);
        // Other documents with the last row's place are read too, but not that row again.
        docs.push(...near.filter((doc) => doc.sequence !== from || String(doc._id) > String(id)));
        if (docs.length < wanted) {
          const beyond = { process_id, sequence: { $gt: from + wanted } };
          docs.push(...(await read(beyond, wanted - docs.length)));
        }
      }
      const others = process === undefined ? { $gte: '' } : { $gt: String(process) };
      if (docs.length < wanted) docs.push(...(await read({ process_id: others }, wanted - docs.length)));
      if (docs.length < wanted) docs.push(...(await read(NO_PROCESS, 1)));
      const paged = pagedBy(docs.slice(0, wanted), page.size, ({ process_id, sequence, _id }) => [
        process_id,
        sequence,
        _id,
      ]);
      return { items: paged.items.map(toChainRow), next: paged.next };
    });
  }

  /** Nothing to check: lists use the server's own indexes. */
  async checkLists() {
    return { stray: false, next: undefined };
  }

  async rebuildLists(): Promise<number> {
    await this.#database.audit.createIndexes([...INDEXES.audit]);
    return this.#audit.count();
  }

  hashesAt(process_id: string, sequences: readonly number[]): Promise<ReadonlyMap<number, string>> {
    return guarded(async (limits) => {
      const where = { process_id, sequence: { $in: [...sequences] } };
      const projection = { sequence: 1, hash: 1 };
      const docs = await this.#database.audit.find(where, { projection, ...limits }).toArray();
      return new Map(docs.map(({ sequence, hash }) => [sequence, hash]));
    });
  }

  heads(): Promise<readonly ChainHead[]> {
    return readHeads(this.#database);
  }

  async ownHead(): Promise<ChainPlace | undefined> {
    return this.#audit.place;
  }

  noteListed(heads: readonly ChainPlace[]): Promise<void> {
    return noteListed(this.#database, this.#chain, heads);
  }

  async expiredPrefixes(time: number, limit: number): Promise<readonly ChainPrefix[]> {
    const prefixes: ChainPrefix[] = [];
    let process = '';
    for (let left = limit; left > 0; ) {
      const [first] = await this.#rows({ process_id: { $gt: process } }, 1);
      if (first === undefined) break;
      process = first.process_id;
      if (first.time.getTime() >= time) continue;
      const counted = await this.#reachOf(process);
      const rows = await this.#rows({ process_id: process, sequence: { $lte: counted } }, left);
      const end = rows.findIndex((row) => row.time.getTime() >= time);
      const last = rows[(end < 0 ? rows.length : end) - 1];
      if (last === undefined) continue;
      const events = end < 0 ? rows.length : end;
      prefixes.push({ processId: process, sequence: last.sequence, hash: last.hash, events });
      left -= events;
    }
    return prefixes;
  }

  async noteCut(place: ChainPlace, time: number): Promise<void> {
    const _id = noteId(place.processId);
    const head = (await this.heads()).find(({ processId }) => processId === place.processId);
    const behind = head !== undefined && head.sequence < place.sequence;
    // After a crash the note may be older than the cut: a chain cannot end before its beginning.
    if (behind && head.mac === this.#chain.noteMac(head)) {
      const fields = noteFields(this.#chain, { ...head, ...place });
      const same = { _id, sequence: head.sequence };
      await guarded((limits) => this.#database.meta.updateOne(same, { $set: fields }, { ...limits }));
    }
    const cut = cutFields(this.#chain, place, time);
    await guarded((limits) => this.#database.meta.updateOne({ _id }, { $set: { cut } }, { ...limits }));
  }

  async cut({ processId, sequence, hash }: ChainPrefix, time: number): Promise<void> {
    await this.noteCut({ processId, sequence, hash }, time);
    const old = { process_id: processId, sequence: { $lte: sequence } };
    await guarded((limits) => this.#database.audit.deleteMany(old, { ...limits }));
  }

  /** The first matching rows, in the order of the chain. */
  #rows(where: Filter<AuditDoc>, limit: number) {
    const projection = { process_id: 1, sequence: 1, hash: 1, time: 1 };
    return guarded((limits) =>
      this.#database.audit
        .find(where, { projection, ...limits })
        .sort({ process_id: 1, sequence: 1 })
        .limit(limit)
        .toArray(),
    );
  }
}

const NO_PROCESS = { process_id: { $not: { $type: 'string' } } } as unknown as Filter<AuditDoc>;

/** Converts a document: a tampered one must not make the verification throw. */
function toChainRow(doc: AuditDoc): ChainRow {
  const whole =
    typeof doc._id === 'string' &&
    typeof doc.process_id === 'string' &&
    Number.isSafeInteger(doc.sequence) &&
    typeof doc.hash === 'string' &&
    typeof doc.served_by === 'string' &&
    doc.time instanceof Date;
  const place = {
    id: String(doc._id),
    processId: String(doc.process_id),
    sequence: Number(doc.sequence),
    hash: String(doc.hash),
    cursor: [String(doc.process_id), Number(doc.sequence), String(doc._id)],
  };
  if (!whole) return { ...place, servedBy: '', time: 0, text: '', flaw: 'CHANGED' };
  const record = toRecord(doc);
  const row = { ...place, servedBy: record.servedBy, time: record.time, text: eventText(record) };
  return isWritten(doc, toEventDoc({ id: doc._id, servedBy: doc.served_by, entry: record }))
    ? row
    : { ...row, flaw: 'CHANGED' };
}

/** Whether a document has exactly the fields that this program writes for the event. */
function isWritten(doc: AuditDoc, event: ReturnType<typeof toEventDoc>): boolean {
  const { id: _id, ...fields } = event;
  const { _id: _, process_id: _p, sequence: _s, hash: _h, ...stands } = doc;
  const names = Object.keys(stands);
  if (names.length !== Object.keys(fields).length) return false;
  return names.every((name) => {
    const [one, other] = [stands[name as never] as unknown, fields[name as never] as unknown];
    return one instanceof Date && other instanceof Date ? one.getTime() === other.getTime() : one === other;
  });
}

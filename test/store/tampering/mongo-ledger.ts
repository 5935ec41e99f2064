import { Long, MongoClient } from 'mongodb';
import { eventText, parseEvent } from '../../../src/audit/fields.ts';
import { type AuditDoc, toEventDoc, toRecord } from '../../../src/store/mongo/rows.ts';
import type { Ledger, LedgerNote, LedgerRow, LedgerStore } from './ledger.ts';

type Doc = { _id: string } & Record<string, unknown>;

async function withDatabase<T>(
  url: string,
  use: (db: ReturnType<MongoClient['db']>) => Promise<T>,
): Promise<T> {
  const client = await new MongoClient(url).connect();
  try {
    return await use(client.db());
  } finally {
    await client.close();
  }
}

function docOf({ id, processId, sequence, hash, time, text, more }: LedgerRow, _id: string): Doc {
  const { id: _, ...fields } = toEventDoc({ id, servedBy: processId, entry: parseEvent(time, text) });
  const number = typeof sequence === 'bigint' ? Long.fromBigInt(sequence) : sequence;
  return { _id, process_id: processId, sequence: number, hash, ...fields, ...more };
}

export const mongoLedger: LedgerStore = {
  read: (url) =>
    withDatabase(url, async (db) => {
      const rows = await db.collection<AuditDoc>('api_key_audit_log').find().toArray();
      const notes = await db
        .collection<Doc>('api_key_meta')
        .find({ _id: /^head:/ })
        .toArray();
      const first = (processId: string) =>
        Math.min(...rows.filter((row) => row.process_id === processId).map(({ time }) => time.getTime()));
      // As they were written, for those who look at them: chain after chain.
      rows.sort(
        (a, b) =>
          first(a.process_id) - first(b.process_id) ||
          a.process_id.localeCompare(b.process_id) ||
          a.sequence - b.sequence,
      );
      return {
        rows: rows.map((doc): LedgerRow => {
          const { id, processId, sequence, hash, time, ...entry } = toRecord(doc);
          return { id, processId, sequence, hash, time, text: eventText({ time, ...entry }) };
        }),
        notes: notes.map(
          ({ _id, ...note }) => ({ processId: _id.slice(5), ...note }) as unknown as LedgerNote,
        ),
      };
    }),

  write: (url, { rows, notes }: Ledger) =>
    withDatabase(url, async (db) => {
      const log = db.collection<Doc>('api_key_audit_log');
      const meta = db.collection<Doc>('api_key_meta');
      await log.dropIndex('process_sequence').catch(() => {});
      await log.deleteMany({});
      await meta.deleteMany({ _id: /^head:/ });
      const ids = new Set<string>();
      const docs = rows.map((row) => {
        const _id = ids.has(row.id) ? `${row.id}-twin` : row.id;
        ids.add(_id);
        return docOf(row, _id);
      });
      if (docs.length > 0) await log.insertMany(docs);
      const heads = notes.map(({ processId, ...note }) => ({ _id: `head:${processId}`, ...note }));
      if (heads.length > 0) await meta.insertMany(heads);
    }),
};

import { type Chain, GENESIS } from '../../audit/chain.ts';
import type { ChainHead, ChainPlace } from '../../keys/ports/audit.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';
import type { MetaDoc } from './rows.ts';

export const HEAD = 'head:';
/** All ids with the prefix: ';' is the character after ':'. */
export const HEADS = { $gte: HEAD, $lt: 'head;' };

export const noteId = (processId: string) => HEAD + processId;

/** The fields of the note of a chain's end. */
export function noteFields(chain: Chain, head: ChainHead) {
  const { sequence, hash, closed } = head;
  return {
    sequence,
    hash,
    closed,
    mac: chain.noteMac(head),
    ...(head.older === true ? { older: true } : {}),
  };
}

export function cutFields(chain: Chain, place: ChainPlace, time: number): NonNullable<ChainHead['cut']> {
  return { sequence: place.sequence, hash: place.hash, time, mac: chain.cutMac(place, time) };
}

export async function readHeads(database: MongoDatabase): Promise<readonly ChainHead[]> {
  const docs = await guarded((limits) => database.meta.find({ _id: HEADS }, limits).toArray());
  return docs.map(toHead);
}

function toHead({ _id, sequence = 0, hash = GENESIS, closed, older, mac, cut, listed }: MetaDoc): ChainHead {
  return {
    processId: _id.slice(HEAD.length),
    sequence: Number(sequence),
    hash: String(hash),
    closed: closed === true,
    older: older === true,
    mac: String(mac ?? ''),
    ...(cut === undefined ? {} : { cut: { ...cut } }),
    ...(listed === undefined ? {} : { listed: { ...listed } }),
  };
}

/** Notes that events name these ends of chains. */
export async function noteListed(
  database: MongoDatabase,
  chain: Chain,
  heads: readonly ChainPlace[],
): Promise<void> {
  if (heads.length === 0) return;
  const updates = heads.map(({ processId, sequence }) => {
    const listed = { sequence, mac: chain.listedMac(processId, sequence) };
    return { updateOne: { filter: { _id: noteId(processId) }, update: { $set: { listed } } } };
  });
  await guarded((limits) => database.meta.bulkWrite(updates, { ordered: false, ...limits }));
}

/**
 * Signs the notes of earlier releases, marks them as older, and adds notes that a crash prevented. Where chains name
 * each other, as no earlier release did, the schema version was tampered with, and the notes stay unsigned.
 */
export async function signOlderNotes(database: MongoDatabase, chain: Chain): Promise<void> {
  const { meta, audit } = database;
  if ((await audit.findOne({ outcome: 'CHECKPOINT', reason: /^heads / })) !== null) return;
  let process = '';
  for (;;) {
    const next = audit.find({ process_id: { $gt: process } }).sort({ process_id: 1, sequence: 1 });
    const first = await next.limit(1).next();
    if (first === null) break;
    process = first.process_id;
    const last = await audit
      .find({ process_id: process })
      .sort({ process_id: -1, sequence: -1 })
      .limit(1)
      .next();
    if (last === null) continue;
    const note = { sequence: last.sequence, hash: last.hash, closed: false };
    await meta.updateOne({ _id: noteId(process) }, { $setOnInsert: note }, { upsert: true });
  }
  for (const doc of await meta.find({ _id: HEADS, mac: { $exists: false } }).toArray()) {
    const head = { ...toHead(doc), older: true };
    const cut = doc.cut && cutFields(chain, { processId: head.processId, ...doc.cut }, 0);
    const fields = { ...noteFields(chain, head), ...(cut === undefined ? {} : { cut }) };
    await meta.updateOne({ _id: doc._id, mac: { $exists: false } }, { $set: fields });
  }
}

import type { Key } from '../../keys/key.ts';
import type { MongoAuditLog } from './audit-log.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';
import type { Revisions } from './revisions.ts';
import { ABANDONED_MS, toEvent, toKey, type WaitingDoc } from './rows.ts';

const SWEEP_KEYS = 100;

/** The steps after the write of a key document: its revision, event and rotations (docs/design/outbox.md). */
export class KeyChanges {
  readonly #database: MongoDatabase;
  readonly #audit: MongoAuditLog;
  readonly #revisions: Revisions;

  constructor(database: MongoDatabase, audit: MongoAuditLog, revisions: Revisions) {
    this.#database = database;
    this.#audit = audit;
    this.#revisions = revisions;
  }

  /** Publishes the changes and moves the events that crashed processes left in key documents. */
  async finishAbandoned(now: number): Promise<void> {
    const before = new Date(now - ABANDONED_MS);
    // With the range on the id the index finds exactly the keys whose outbox is not empty.
    const docs = await guarded((limits) =>
      this.#database.keys
        .find({ 'outbox.id': { $gt: '' } }, limits)
        .limit(SWEEP_KEYS)
        .toArray(),
    );
    for (const doc of docs) {
      for (const left of doc.outbox.filter(({ time }) => time < before)) {
        await this.finish(toKey(doc), left);
      }
    }
  }

  async finish(key: Key, waiting: WaitingDoc): Promise<Key> {
    return (await this.finishMany([{ key, waiting }])).get(key.id) ?? key;
  }

  /** Writes the records of rotations that the change began or completed. */
  async #remember(keyId: string, { begun, completed }: WaitingDoc): Promise<void> {
    const { rotations } = this.#database;
    if (completed !== undefined) {
      const update = { $set: { complete_time: completed.time } };
      await guarded((limits) =>
        rotations.updateOne({ _id: completed.id }, update, { upsert: true, ...limits }),
      );
    }
    if (begun === undefined) return;
    const { id, ...fields } = begun;
    // A late sweeper does no harm: these fields never change, and a completion since then is kept.
    const update = { $set: { key_id: keyId, ...fields } };
    await guarded((limits) => rotations.updateOne({ _id: id }, update, { upsert: true, ...limits }));
  }

  /** After the write: publishes, moves the event, and removes it from the document. Each step may run twice. */
  async finishMany(made: readonly { key: Key; waiting: WaitingDoc }[]): Promise<ReadonlyMap<string, Key>> {
    if (made.length === 0) return new Map();
    const first = await this.#revisions.publish(
      made.map(({ key, waiting }) => ({ keyId: key.id, change: waiting.change })),
    );
    for (const { key, waiting } of made) await this.#remember(key.id, waiting);
    await Promise.all(made.map(({ waiting }) => this.#audit.append(toEvent(waiting))));
    const writes = made.map(({ key, waiting }, i) => ({
      updateOne: {
        filter: { _id: key.id },
        update: { $pull: { outbox: { id: waiting.id } }, $max: { revision: first + i } },
      },
    }));
    await guarded((limits) => this.#database.keys.bulkWrite(writes, { ordered: false, ...limits }));
    return new Map(made.map(({ key }, i) => [key.id, { ...key, revision: first + i }]));
  }

  async whichTookPlace(docs: readonly { _id: string; ops: readonly string[] }[]): Promise<Set<string>> {
    const ops = new Map(docs.map((doc) => [doc._id, doc.ops[0]]));
    const found = await guarded((limits) =>
      this.#database.keys
        .find({ _id: { $in: [...ops.keys()] } }, { projection: { ops: 1 }, ...limits })
        .toArray(),
    );
    return new Set(found.filter((doc) => doc.ops.includes(ops.get(doc._id) ?? '')).map(({ _id }) => _id));
  }

  async wasApplied(id: string, op: string): Promise<boolean> {
    return (
      (await guarded((limits) =>
        this.#database.keys.findOne({ _id: id, ops: op }, { projection: { _id: 1 }, ...limits }),
      )) !== null
    );
  }
}

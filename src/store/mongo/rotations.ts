import type { Filter } from 'mongodb';
import type { Page, Paged } from '../../keys/ports/page.ts';
import type { OldUses, RotationLog, RotationRecord } from '../../keys/ports/rotations.ts';
import { pagedBy } from '../paging.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';
import { beforeTime, type RotationDoc } from './rows.ts';

export class MongoRotationLog implements RotationLog {
  readonly #database: MongoDatabase;

  constructor(database: MongoDatabase) {
    this.#database = database;
  }

  list({ keyId }: { keyId?: string }, page: Page): Promise<Paged<RotationRecord>> {
    return guarded(async (limits) => {
      // Without a start: a completed rotation whose beginning is not written here yet.
      const where: Filter<RotationDoc>[] = [{ start_time: { $exists: true } }];
      if (keyId !== undefined) where.push({ key_id: keyId });
      if (page.after !== undefined) where.push(beforeTime('start_time', page.after));
      const docs = await this.#database.rotations
        .find({ $and: where }, limits)
        .sort({ start_time: -1, _id: -1 })
        .limit(page.size + 1)
        .toArray();
      return pagedBy(docs.map(toRotation), page.size, ({ startTime, id }) => [startTime, id]);
    });
  }

  async oldUses(rotationIds: readonly string[]): Promise<ReadonlyMap<string, number>> {
    if (rotationIds.length === 0) return new Map();
    const docs = await guarded((limits) =>
      this.#database.rotations
        .find(
          { _id: { $in: [...rotationIds] }, old_uses: { $gt: 0 } },
          { projection: { old_uses: 1 }, ...limits },
        )
        .toArray(),
    );
    return new Map(docs.map((doc) => [doc._id, doc.old_uses ?? 0]));
  }

  async addOldUses(uses: ReadonlyMap<string, OldUses>): Promise<void> {
    const writes = [...uses].map(([id, { uses: n, lastTime, lastIp }]) => ({
      updateOne: {
        filter: { _id: id },
        update: {
          $inc: { old_uses: n },
          $max: { last_old_use_time: new Date(lastTime) },
          $set: { last_old_use_ip: lastIp },
        },
      },
    }));
    await guarded((limits) => this.#database.rotations.bulkWrite(writes, { ordered: false, ...limits }));
  }

  async noteGraceEnded(rotationId: string): Promise<boolean> {
    const filter = { _id: rotationId, grace_end_noted: { $ne: true } };
    const update = { $set: { grace_end_noted: true } };
    const { modifiedCount } = await guarded((limits) =>
      this.#database.rotations.updateOne(filter, update, { ...limits }),
    );
    return modifiedCount === 1;
  }
}

function toRotation(doc: RotationDoc): RotationRecord {
  return {
    id: doc._id,
    keyId: doc.key_id,
    mode: doc.mode as RotationRecord['mode'],
    startTime: doc.start_time.getTime(),
    expireTime: doc.expire_time.getTime(),
    completeTime: doc.complete_time?.getTime(),
    oldUses: doc.old_uses ?? 0,
    lastOldUseTime: doc.last_old_use_time?.getTime(),
    lastOldUseIp: doc.last_old_use_ip ?? '',
  };
}

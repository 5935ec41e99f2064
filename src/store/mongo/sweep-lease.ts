import type { SweepLease } from '../../keys/notices.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';

const ID = 'sweeper';

/** One document names the sweeping process and the end of its lease, by the server's clock only. */
export class MongoSweepLease implements SweepLease {
  readonly #database: MongoDatabase;
  readonly #processId: string;

  constructor(database: MongoDatabase, processId: string) {
    this.#database = database;
    this.#processId = processId;
  }

  async take(forMs: number): Promise<boolean> {
    const me = this.#processId;
    const mine = { $or: [{ $eq: ['$holder', me] }, { $lt: ['$until', '$$NOW'] }] };
    const pipeline = [
      {
        $set: {
          holder: { $cond: [mine, me, '$holder'] },
          until: { $cond: [mine, { $add: ['$$NOW', forMs] }, '$until'] },
        },
      },
    ];
    const options = { returnDocument: 'after', projection: { holder: 1 } } as const;
    const doc = await guarded((limits) =>
      this.#database.meta.findOneAndUpdate({ _id: ID }, pipeline, { ...options, ...limits }),
    );
    return doc?.holder === me;
  }

  async release(): Promise<void> {
    const filter = { _id: ID, holder: this.#processId };
    const update = { $set: { holder: '', until: new Date(0) } };
    await guarded((limits) => this.#database.meta.updateOne(filter, update, { ...limits }));
  }
}

import { randomBytes } from 'node:crypto';
import type { Recovery } from '../store.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';

const ID = { _id: 'revision' };

/** Keeps the state in the document of the revision, so that both are restored together. */
export class MongoRecovery implements Recovery {
  readonly #database: MongoDatabase;
  #epoch: string;

  private constructor(database: MongoDatabase, epoch: string) {
    this.#database = database;
    this.#epoch = epoch;
  }

  static async open(database: MongoDatabase): Promise<MongoRecovery> {
    const doc = await guarded((limits) => database.meta.findOne(ID, limits));
    return new MongoRecovery(database, doc?.epoch ?? '');
  }

  get epoch(): string {
    return this.#epoch;
  }

  async behindSince(): Promise<number | undefined> {
    const doc = await guarded((limits) => this.#database.meta.findOne(ID, limits));
    this.#epoch = doc?.epoch ?? '';
    return doc?.behind_since;
  }

  /** Of several processes that start at once, one writes the state, and all have the same epoch. */
  async begin(revision: number, next: number): Promise<void> {
    const unnoted = { ...ID, behind_since: { $exists: false } };
    const epoch = randomBytes(8).toString('hex');
    const update = { $set: { behind_since: revision, epoch, recent: [] }, $max: { revision: next } };
    await guarded((limits) => this.#database.meta.updateOne(unnoted, update, { ...limits }));
    await this.behindSince();
  }

  async end(): Promise<void> {
    const update = { $unset: { behind_since: '' as const } };
    await guarded((limits) => this.#database.meta.updateOne(ID, update, { ...limits }));
  }
}

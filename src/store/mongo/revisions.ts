import type { FindOptions } from 'mongodb';
import type { KeyChange, PublishedChange } from '../../keys/ports/key-store.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';

const KEPT_CHANGES = 1_000;

/** The counter of changes, with the latest changes (docs/design/lease.md A). */
export class Revisions {
  readonly #database: MongoDatabase;
  /** The newest revision this process has seen. */
  #seen = 0;

  constructor(database: MongoDatabase) {
    this.#database = database;
  }

  get seen(): number {
    return this.#seen;
  }

  /** Publishes revisions and keys together, in one update of one document. Returns the first revision. */
  async publish(changes: readonly { readonly keyId: string; readonly change: string }[]): Promise<number> {
    const number = (i: number) => ({ $add: ['$revision', i + 1] });
    const entries = changes.map(({ keyId, change }, i) => ({ revision: number(i), key_id: keyId, change }));
    const pipeline = [
      {
        $set: {
          revision: number(changes.length - 1),
          recent: { $slice: [{ $concatArrays: ['$recent', entries] }, -KEPT_CHANGES] },
        },
      },
    ];
    const options = { returnDocument: 'after', projection: { revision: 1 } } as const;
    const doc = await guarded((limits) =>
      this.#database.meta.findOneAndUpdate({ _id: 'revision' }, pipeline, { ...options, ...limits }),
    );
    return this.#see(doc?.revision ?? 0) - changes.length + 1;
  }

  async read(): Promise<number> {
    const doc = await guarded((limits) =>
      this.#database.meta.findOne({ _id: 'revision' }, { projection: { revision: 1 }, ...limits }),
    );
    return this.#see(doc?.revision ?? 0);
  }

  /** The changes published after a revision; undefined when not all of them are remembered any more. */
  async changesSince(after: number, limits: FindOptions) {
    const doc = await this.#database.meta.findOne({ _id: 'revision' }, limits);
    const revision = this.#see(doc?.revision ?? 0);
    const recent = (doc?.recent ?? []).filter((change) => change.revision > after);
    const changes = recent.map(
      (change): PublishedChange => ({
        revision: change.revision,
        keyId: change.key_id,
        change: change.change as KeyChange,
      }),
    );
    return { revision, changes: after >= 0 && recent.length === revision - after ? changes : undefined };
  }

  #see(revision: number): number {
    this.#seen = Math.max(this.#seen, revision);
    return revision;
  }
}

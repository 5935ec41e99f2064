import type { ClientSession, FindOptions, Timestamp } from 'mongodb';
import type { MongoDatabase } from './database.ts';
import { inTime, type Limits } from './errors.ts';

/** The limit of a linearizable read: it waits for a majority, which may never be there. */
const MAX_TIME_MS = 2_000;

type ReadOptions = Limits &
  Pick<FindOptions, 'readConcern' | 'maxTimeMS'> & { readonly session?: ClientSession };

/**
 * Reads that a deposed primary cannot answer (docs/design/lease.md F). Under a lease: a majority read in a causal
 * session that has seen the time of the last poll, which a primary that was cut off never reaches. Without a lease, and
 * for the poll itself: a linearizable read of one document. A server without a replica set needs neither.
 */
export class FreshReads {
  readonly #database: MongoDatabase;
  readonly #lease: { readonly holds: boolean };
  #replicated: boolean | undefined;
  /** The cluster time at which the last successful poll was answered. */
  #pollTime: Timestamp | undefined;

  constructor(database: MongoDatabase, lease: { readonly holds: boolean }) {
    this.#database = database;
    this.#lease = lease;
  }

  /** Runs the read of a poll. */
  async poll<T>(read: (options: ReadOptions) => Promise<T>, limitMs: number): Promise<T> {
    if (!(await this.#isReplicated())) return inTime(read, limitMs);
    // A new session: one that has seen a cluster time sends it, which a linearizable read refuses.
    const session = this.#database.client.startSession({ causalConsistency: true });
    try {
      const response = await inTime((limits) => read({ ...limits, ...LINEARIZABLE, session }), limitMs);
      this.#pollTime = session.operationTime ?? undefined;
      return response;
    } finally {
      await session.endSession();
    }
  }

  /** Runs a read of one document by a unique field. */
  async one<T>(read: (options: ReadOptions) => Promise<T>): Promise<T> {
    if (!(await this.#isReplicated())) return inTime(read);
    const { holds } = this.#lease;
    if (!holds || this.#pollTime === undefined)
      return inTime((limits) => read({ ...limits, ...LINEARIZABLE }));
    const session = this.#database.client.startSession({ causalConsistency: true });
    try {
      session.advanceOperationTime(this.#pollTime);
      return await inTime((limits) => read({ ...limits, ...MAJORITY, session }));
    } finally {
      await session.endSession();
    }
  }

  /** Asks the server once: its kind does not change under one connection string. */
  async #isReplicated(): Promise<boolean> {
    if (this.#replicated === undefined) {
      const hello = await inTime((limits) => this.#database.client.db().command({ hello: 1 }, { ...limits }));
      this.#replicated = hello.setName !== undefined || hello.msg === 'isdbgrid';
    }
    return this.#replicated;
  }
}

const LINEARIZABLE = { readConcern: { level: 'linearizable' }, maxTimeMS: MAX_TIME_MS } as const;
const MAJORITY = { readConcern: { level: 'majority' }, maxTimeMS: MAX_TIME_MS } as const;

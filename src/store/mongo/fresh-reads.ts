import type { ClientSession, FindOptions, Timestamp } from 'mongodb';
import type { MongoDatabase } from './database.ts';
import { inTime, type Limits } from './errors.ts';

/** A linearizable read waits for the majority: without a limit it would wait for ever when there is none. */
const MAX_TIME_MS = 2_000;

type ReadOptions = Limits &
  Pick<FindOptions, 'readConcern' | 'maxTimeMS'> & { readonly session?: ClientSession };

/**
 * Reads that a deposed primary cannot answer (docs/design/lease.md F). Under a lease, a majority read in a causal session that has
 * seen the last poll: a primary that was cut off never reaches that time. Without a lease, and for the poll itself, a
 * linearizable read of one document. A server alone, or one that offers none of this, has no other primary to fear.
 */
export class FreshReads {
  readonly #database: MongoDatabase;
  readonly #lease: { readonly holds: boolean };
  #replicated: boolean | undefined;
  /** When the last poll that succeeded was answered, in the cluster's own time. */
  #pollTime: Timestamp | undefined;

  constructor(database: MongoDatabase, lease: { readonly holds: boolean }) {
    this.#database = database;
    this.#lease = lease;
  }

  /** The read of a poll. */
  async poll<T>(read: (options: ReadOptions) => Promise<T>, limitMs: number): Promise<T> {
    if (!(await this.#isReplicated())) return inTime(read, limitMs);
    // A session of its own: one that has seen a time asks for it, which a linearizable read refuses.
    const session = this.#database.client.startSession({ causalConsistency: true });
    try {
      const response = await inTime((limits) => read({ ...limits, ...LINEARIZABLE, session }), limitMs);
      this.#pollTime = session.operationTime ?? undefined;
      return response;
    } finally {
      await session.endSession();
    }
  }

  /** A read of one document by a unique field. */
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

  /** Asked once: what a server is does not change under a connection string. */
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

// If this fails, a primary that was deposed and does not know it can answer a read, and a revoked key is VALID there.
import { describe, expect, it } from 'vitest';
import type { MongoDatabase } from '../../src/store/mongo/database.ts';
import { FreshReads } from '../../src/store/mongo/fresh-reads.ts';

/** A database that says what it is, and remembers how it was read. */
function readsOf(hello: object, lease: { holds: boolean }) {
  let time = 0;
  const sessions: {
    operationTime?: number;
    ended: boolean;
    advanceOperationTime(to: number): void;
    endSession(): Promise<void>;
  }[] = [];
  const startSession = () => {
    const session = {
      ended: false,
      advanceOperationTime(to: number) {
        Object.assign(session, { operationTime: to });
      },
      async endSession() {
        session.ended = true;
      },
    };
    sessions.push(session);
    return session;
  };
  const database = { client: { startSession, db: () => ({ command: async () => hello }) } };
  const seen: { level?: string; after?: number; limited: boolean }[] = [];
  const read = async (options: object) => {
    const { readConcern, maxTimeMS, session } = options as {
      readConcern?: { level: string };
      maxTimeMS?: number;
      session?: { operationTime?: number };
    };
    seen.push({
      ...(readConcern === undefined ? {} : { level: readConcern.level }),
      ...(session?.operationTime === undefined ? {} : { after: session.operationTime }),
      limited: maxTimeMS !== undefined,
    });
    if (session !== undefined) Object.assign(session, { operationTime: ++time });
    return 'answer';
  };
  return { reads: new FreshReads(database as unknown as MongoDatabase, lease), read, seen, sessions };
}

describe('fresh reads', () => {
  it.each([{ setName: 'rs0' }, { msg: 'isdbgrid' }])(
    'of %j are linearizable without a lease, and see the last poll with one',
    async (hello) => {
      const lease = { holds: false };
      const { reads, read, seen, sessions } = readsOf(hello, lease);
      expect(await reads.one(read)).toBe('answer');
      await reads.poll(read, 1_000);
      lease.holds = true;
      await reads.one(read);
      await reads.poll(read, 1_000);
      await reads.one(read);
      lease.holds = false;
      await reads.one(read);
      const linearizable = { level: 'linearizable', limited: true };
      expect(seen).toEqual([
        linearizable,
        linearizable,
        { level: 'majority', after: 1, limited: true },
        // A poll asks for no time that was seen: a linearizable read refuses that.
        linearizable,
        { level: 'majority', after: 3, limited: true },
        linearizable,
      ]);
      expect(sessions.every(({ ended }) => ended)).toBe(true);
    },
  );

  it('of a server alone are plain', async () => {
    const { reads, read, seen, sessions } = readsOf({ isWritablePrimary: true }, { holds: true });
    await reads.poll(read, 1_000);
    await reads.one(read);
    expect(seen).toEqual([{ limited: false }, { limited: false }]);
    expect(sessions).toEqual([]);
  });
});

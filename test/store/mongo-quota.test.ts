// If this fails, one call takes twice from a limit when an election hides whether its first request was served.
import { MongoNetworkError } from 'mongodb';
import { afterAll, expect, inject, it } from 'vitest';
import { MongoDatabase } from '../../src/store/mongo/database.ts';
import { MongoQuota } from '../../src/store/mongo/quota.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase } from '../support/server.ts';

/** A look answers as the take would that it does not make. */
const PEEKED = 1;
const REQUEST = { bucket: 'hot', limits: [{ name: 'm', limit: 1_000, windowMs: 600_000 }], cost: 1 };

requires('mongodb').describe('a bucket that many processes take from', () => {
  const fresh = freshDatabase('mongo', inject('mongoUri'));
  const open: MongoDatabase[] = [];
  afterAll(async () => {
    for (const database of open) await database.close();
    await fresh.drop();
  });

  it('a take whose answer was lost is counted once, however many others take before it is tried again', async () => {
    const database = await MongoDatabase.connect(fresh.url);
    open.push(database);
    const others = Array.from({ length: 20 }, (_, i) => new MongoQuota(database, `other${i}`));
    let lost = 0;
    const losing = new Proxy(database.limits, {
      get(target, name) {
        if (name !== 'findOneAndUpdate') return Reflect.get(target, name);
        return async (...args: Parameters<typeof target.findOneAndUpdate>) => {
          const answer = await target.findOneAndUpdate(...args);
          if (lost++ > 0) return answer;
          for (const other of others) await other.take(REQUEST);
          throw new MongoNetworkError('connection closed');
        };
      },
    });
    const unlucky = new MongoQuota(
      new Proxy(database, {
        get: (target, name) => (name === 'limits' ? losing : Reflect.get(target, name)),
      }),
      'unlucky',
    );
    await unlucky.take(REQUEST);
    const { states } = await unlucky.peek(REQUEST);
    expect(states[0]?.remaining).toBe(1_000 - 21 - PEEKED);
    // Of each process its last op, and no more.
    for (const other of others) await other.take(REQUEST);
    const doc = await database.limits.findOne({ key: 'quota:hot' });
    expect(doc?.ops).toHaveLength(21);
    expect((await unlucky.peek(REQUEST)).states[0]?.remaining).toBe(1_000 - 41 - PEEKED);
  });
});

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RemoteKeyRecord } from '../../../src/keys/remote-keys.ts';
import { hashSecret } from '../../../src/keys/secret.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { entryWith } from '../../support/keys.ts';
import type { Adapter } from './harness.ts';

const of = (user: string) => ({ user, userId: undefined });

/** Records of what was made in other systems. */
export function remoteKeysContract(adapter: Adapter): void {
  describe.each(['giteaTokens', 'n8nApiKeys'] as const)(`${adapter.name}: %s`, (log) => {
    const clock = new TestClock(Date.now());
    let url: string;
    let store: Store;
    beforeEach(async () => {
      url = adapter.freshUrl();
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    const record = (fields: Partial<RemoteKeyRecord> = {}): RemoteKeyRecord => ({
      id: '7',
      user: 'alice',
      userId: undefined,
      name: 'ci',
      scopes: ['read:user', 'write:issue'],
      lastEight: '89abcdef',
      hash: hashSecret('secret'),
      createTime: clock.now(),
      expireTime: undefined,
      deleteTime: undefined,
      lastVerifyTime: undefined,
      lastVerifyResult: undefined,
      ...fields,
    });
    const entry = (reason: string) => entryWith({ time: clock.now(), outcome: 'OK', reason });
    const found = async (id: string) => (await store[log].find([id]))[0];
    const reasons = async () => {
      const { items } = await store.audit.list({}, { size: 100, after: undefined });
      return items.map(({ reason }) => reason);
    };

    it('keeps every field, over a restart, with the event of the call', async () => {
      const full = record({
        expireTime: clock.now() + 1_000,
        deleteTime: clock.now() + 2_000,
        lastVerifyTime: clock.now() + 3_000,
        lastVerifyResult: 'UNUSABLE',
        userId: '42',
      });
      await store[log].put(full, entry('made'));
      const plain = record({ id: '8', hash: hashSecret('other'), lastVerifyResult: undefined });
      await store[log].put(plain, entry('made, too'));
      await store.close();
      store = await adapter.open(url, clock);
      expect(await found('7')).toEqual(full);
      expect(await store[log].findByHash(plain.hash)).toEqual(plain);
      expect(await found('9')).toBeUndefined();
      expect(await store[log].findByHash(hashSecret('third'))).toBeUndefined();
      expect(await reasons()).toEqual(['made, too', 'made']);
    });

    it.each(['ALIVE', 'DEAD', 'UNUSABLE'] as const)('keeps a key that is %s', async (lastVerifyResult) => {
      await store[log].put(record({ lastVerifyTime: 5, lastVerifyResult: 'UNUSABLE' }), entry('made'));
      await store[log].change('7', { lastVerifyTime: 6, lastVerifyResult }, entry('verified'));
      expect(await found('7')).toEqual(record({ lastVerifyTime: 6, lastVerifyResult }));
    });

    it('finds any of many ids, deleted or not, and none for none', async () => {
      await store[log].put(record({ deleteTime: clock.now() }), entry('a'));
      await store[log].put(record({ id: '8', user: 'bob' }), entry('b'));
      const many = ['7', '8', ...Array.from({ length: 5_000 }, (_, i) => `none-${i}`)];
      expect((await store[log].find(many)).map(({ id }) => id).sort()).toEqual(['7', '8']);
      expect(await store[log].find([])).toEqual([]);
    });

    it('puts right one that was noted as deleted, and one whose user has a new name', async () => {
      await store[log].put(record({ userId: '42', deleteTime: clock.now() }), entry('made'));
      const seenOf = { user: 'alicia', userId: undefined };
      expect(await store[log].change('7', { seenOf }, entry('seen'))).toBe(true);
      expect(await found('7')).toEqual(record({ user: 'alicia', userId: '42' }));
      await store[log].change('7', { seenOf: { user: 'alex', userId: '43' } }, entry('seen'));
      expect(await found('7')).toEqual(record({ user: 'alex', userId: '43' }));
      expect(await store[log].list({ user: 'alice', userId: '43' })).toHaveLength(1);
      expect(await store[log].list({ user: 'alice', userId: '42' })).toEqual([]);
      expect(await reasons()).toEqual(['seen', 'seen', 'made']);
    });

    it('puts a record in the place of one whose id has come again', async () => {
      await store[log].put(record({ deleteTime: clock.now(), expireTime: clock.now() }), entry('first'));
      const second = record({ name: 'again' });
      await store[log].put(second, entry('second'));
      expect(await found('7')).toEqual(second);
    });

    it('changes one with the event of the call, or neither', async () => {
      await store[log].put(record(), entry('made'));
      const verified = { lastVerifyTime: clock.now() + 5, lastVerifyResult: 'ALIVE' as const };
      expect(await store[log].change('7', verified, entry('verified'))).toBe(true);
      const gone = { deleteTime: clock.now() + 6 };
      expect(await store[log].change('7', gone, entry('deleted'))).toBe(true);
      expect(await store[log].change('8', gone, entry('nobody'))).toBe(false);
      expect(await found('7')).toEqual(record({ ...verified, ...gone }));
      expect(await reasons()).toEqual(['deleted', 'verified', 'made']);
    });

    it('lists those of one user that are not deleted, newest first', async () => {
      for (const [id, user, more] of [
        ['1', 'alice', {}],
        ['2', 'bob', {}],
        ['3', 'alice', { deleteTime: clock.now() }],
        ['4', 'alice', {}],
      ] as const)
        await store[log].put(record({ id, user, createTime: clock.now() + Number(id), ...more }), entry(id));
      expect((await store[log].list(of('alice'))).map(({ id }) => id)).toEqual(['4', '1']);
      expect(await store[log].list(of('carol'))).toEqual([]);
      const other = log === 'giteaTokens' ? 'n8nApiKeys' : 'giteaTokens';
      expect(await store[other].list(of('alice'))).toEqual([]);
    });
  });
}

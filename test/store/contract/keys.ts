import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IpAllowlist } from '../../../src/keys/ip.ts';
import type { KeyStatus } from '../../../src/keys/key.ts';
import type { KeyFilter } from '../../../src/keys/ports/key-store.ts';
import { hashSecret } from '../../../src/keys/secret.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { allPages, entryWith, keyWith } from '../../support/keys.ts';
import type { Adapter } from './harness.ts';

export function keyStoreContract(adapter: Adapter): void {
  describe(`${adapter.name}: keys`, () => {
    let url: string;
    let store: Store;
    const clock = new TestClock();
    beforeEach(async () => {
      url = adapter.freshUrl();
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    const events = () => allPages((page) => store.audit.list({}, page), 100);

    it('gives back every field of a key, by hash and by id', async () => {
      const { key, secret } = keyWith({
        name: 'näme "quoted"',
        scopes: ['a:*', '*:b'],
        rateLimits: [{ name: 'per.minute', limit: 10, windowMs: 60_000 }],
        rateLimitBucket: 'shared $bucket.with-dots',
        ipAllowlist: new IpAllowlist(['10.0.0.0/8', '2001:db8::/32']),
        metadata: { 'a.b': '1', $c: '2', '': '3' },
        expireTime: 5_000_000_000_000,
        requestId: 'r-1',
      });
      const inserted = await store.keys.insert(key, entryWith({ keyId: key.id, outcome: 'OK' }));
      expect(inserted).toMatchObject({ outcome: 'INSERTED', key: { revision: 1 } });
      const stored = { ...key, revision: 1 };
      expect((await store.keys.findByHash(hashSecret(secret))).key).toEqual(stored);
      expect(await store.keys.get(key.id)).toEqual(stored);
      expect((await store.keys.findByHash(hashSecret('audit_v1_other'))).key).toBeUndefined();
    });

    it('remembers the last 1 000 changes, in order', async () => {
      const { key } = keyWith();
      await store.keys.insert(key, entryWith());
      let etag = key.etag;
      for (let i = 0; i < 1_003; i++) {
        await store.keys.replace({ ...key, etag: `e${i}` }, etag, 'UPDATED', entryWith());
        etag = `e${i}`;
      }
      expect(await store.keys.changesSince(1_001)).toEqual({
        revision: 1_004,
        changes: [1_002, 1_003, 1_004].map((revision) => ({ revision, keyId: key.id, change: 'UPDATED' })),
      });
      expect((await store.keys.changesSince(4)).changes).toHaveLength(1_000);
      expect(await store.keys.changesSince(3)).toEqual({ revision: 1_004, changes: undefined });
      expect(await store.keys.changesSince(1_004)).toEqual({ revision: 1_004, changes: [] });
      expect((await store.keys.changesSince(1_005)).changes).toBeUndefined();
    });

    it('stores a key and its event, both or neither', async () => {
      const { key } = keyWith();
      await store.keys.insert(key, entryWith({ keyId: key.id, outcome: 'OK' }));
      const twin = keyWith({ secrets: key.secrets }).key;
      expect(await store.keys.insert(twin, entryWith({ keyId: twin.id, outcome: 'OK' }))).toEqual({
        outcome: 'COLLISION',
      });
      expect(await store.keys.insert({ ...keyWith().key, id: key.id }, entryWith())).toEqual({
        outcome: 'COLLISION',
      });
      expect(await store.keys.get(twin.id)).toBeUndefined();
      expect((await events()).map(({ keyId }) => keyId)).toEqual([key.id]);
    });

    it('stores many keys, each with its event and a number of its own, and names those that collide', async () => {
      const { key: first, secret } = keyWith();
      await store.keys.insert(first, entryWith({ keyId: first.id }));
      const many = Array.from({ length: 40 }, () => keyWith().key);
      const sameSecret = keyWith({ secrets: first.secrets }).key;
      const items = [...many.slice(0, 20), sameSecret, ...many.slice(20)].map((key) => ({
        key,
        entry: entryWith({ keyId: key.id, method: 'apikey.v1.ApiKeyAdmin/ImportKeys' }),
      }));
      const inserted = await store.keys.insertMany(items);
      expect(inserted.map(({ outcome }) => outcome)).toEqual(
        items.map(({ key }) => (key === sameSecret ? 'COLLISION' : 'INSERTED')),
      );
      const stored = await allPages((page) => store.keys.list({}, page));
      const made = stored.filter(({ id }) => many.some((key) => key.id === id));
      expect(made.map(({ revision }) => revision).sort((a, b) => a - b)).toEqual(many.map((_, i) => i + 2));
      expect(stored.find(({ id }) => id === sameSecret.id)).toBeUndefined();
      const { changes } = await store.keys.changesSince(1);
      expect(new Map(changes?.map(({ revision, keyId }) => [revision, keyId]))).toEqual(
        new Map(made.map(({ revision, id }) => [revision, id])),
      );
      const told = (await events()).map(({ keyId }) => keyId);
      expect(told.sort()).toEqual([first.id, ...many.map(({ id }) => id)].sort());
      expect((await store.keys.findByHash(hashSecret(secret))).key?.id).toBe(first.id);
      expect(await store.keys.insertMany([])).toEqual([]);
    });

    it('names who holds secrets, and who did', async () => {
      const { key, secret } = keyWith();
      const retired = [hashSecret('retired'), hashSecret('also retired')];
      await store.keys.insert(key, entryWith());
      const effects = { retired, narrows: false };
      await store.keys.replace({ ...key, etag: 'e2' }, key.etag, 'ROTATED', entryWith(), effects);
      const hashes = [hashSecret(secret), ...retired, hashSecret('nobody')];
      expect(await store.keys.holdersOf(hashes)).toEqual(
        new Map([
          [hashes[0], { keyId: key.id, retired: false }],
          [hashes[1], { keyId: key.id, retired: true }],
          [hashes[2], { keyId: key.id, retired: true }],
        ]),
      );
      expect(await store.keys.holdersOf([])).toEqual(new Map());
    });

    it('lets one of many win a secret, and a version', async () => {
      const { key } = keyWith();
      const racers = Array.from({ length: 12 }, () => keyWith({ secrets: key.secrets }).key);
      const outcomes = await Promise.all(
        racers.map((racer) => store.keys.insert(racer, entryWith({ keyId: racer.id }))),
      );
      expect(outcomes.filter(({ outcome }) => outcome === 'INSERTED')).toHaveLength(1);
      const winner = (await store.keys.findByHash(key.secrets[0]?.hash ?? '')).key;
      if (winner === undefined) throw new Error('nobody won');
      const changed = await Promise.all(
        racers.map((_, i) =>
          store.keys.replace(
            { ...winner, name: `n${i}`, etag: `e${i}` },
            winner.etag,
            'UPDATED',
            entryWith({ keyId: winner.id }),
          ),
        ),
      );
      expect(changed.filter((result) => result !== undefined)).toHaveLength(1);
      expect(await events()).toHaveLength(2);
    });

    it('replaces the version that was read, and no other', async () => {
      const { key, secret } = keyWith({ expireTime: 9_000_000_000_000 });
      await store.keys.insert(key, entryWith());
      const next = {
        ...key,
        name: 'new',
        expireTime: undefined,
        revokeTime: 7_000,
        revokeReason: 'SUPERSEDED' as const,
        etag: 'two',
      };
      expect(await store.keys.replace(next, key.etag, 'REVOKED', entryWith())).toEqual({
        ...next,
        revision: 2,
      });
      expect((await store.keys.findByHash(hashSecret(secret))).key).toEqual({ ...next, revision: 2 });
      expect(
        await store.keys.replace({ ...next, name: 'late' }, key.etag, 'UPDATED', entryWith()),
      ).toBeUndefined();
      expect((await store.keys.get(key.id))?.name).toBe('new');
      expect(await store.keys.revision()).toBe(2);
    });

    it('names the key that used a request_id, until it is let go', async () => {
      const { key } = keyWith({ requestId: 'once' });
      await store.keys.insert(key, entryWith());
      const again = () => store.keys.insert(keyWith({ requestId: 'once' }).key, entryWith());
      expect(await again()).toMatchObject({ outcome: 'REQUEST_ID_USED', key: { id: key.id } });
      await store.keys.forgetRequestId(key.id, 'once');
      expect(await again()).toMatchObject({ outcome: 'INSERTED' });
    });

    it('lists in a stable order over pages while keys are added', async () => {
      const keys = Array.from(
        { length: 25 },
        (_, i) => keyWith({ createTime: 1_000 + Math.floor(i / 4), ownerId: i % 2 ? 'odd' : 'even' }).key,
      );
      for (const key of keys) await store.keys.insert(key, entryWith());
      const byOrder = [...keys].sort((a, b) => a.createTime - b.createTime || (a.id < b.id ? -1 : 1));
      expect((await allPages((page) => store.keys.list({}, page))).map(({ id }) => id)).toEqual(
        byOrder.map(({ id }) => id),
      );
      const odd = await allPages((page) => store.keys.list({ ownerId: 'odd' }, page), 5);
      expect(odd.map(({ id }) => id)).toEqual(
        byOrder.filter(({ ownerId }) => ownerId === 'odd').map(({ id }) => id),
      );
    });

    it('filters by type and status at a time, and counts the same way', async () => {
      const now = 50_000;
      const made = [
        keyWith({ type: 'USER' }),
        keyWith({ type: 'USER', revokeTime: 4_000, disabled: true, expireTime: 10_000 }),
        keyWith({ type: 'SYSTEM', disabled: true, expireTime: 10_000 }),
        keyWith({ type: 'SYSTEM', expireTime: now }),
        keyWith({ type: 'SYSTEM', expireTime: now + 1 }),
        keyWith({ type: 'SYSTEM', expired: true }),
      ].map(({ key }) => key);
      for (const key of made) await store.keys.insert(key, entryWith());
      const listed = async (filter: KeyFilter) =>
        (await allPages((page) => store.keys.list(filter, page))).map(({ id }) => id).sort();
      const ids = (...places: number[]) => places.map((place) => made[place]?.id).sort();
      const status = (is: KeyStatus) => ({ status: { is, at: now } });
      expect(await listed(status('ACTIVE'))).toEqual(ids(0, 4));
      expect(await listed(status('EXPIRED'))).toEqual(ids(3, 5));
      expect(await listed(status('DISABLED'))).toEqual(ids(2));
      expect(await listed(status('REVOKED'))).toEqual(ids(1));
      expect(await listed({ type: 'USER', ...status('ACTIVE') })).toEqual(ids(0));
      expect(await store.keys.count(now)).toEqual({
        byStatus: { ACTIVE: 2, DISABLED: 1, EXPIRED: 2, REVOKED: 1 },
        byType: { SYSTEM: 4, USER: 2, SERVICE: 0, INTEGRATION: 0, EMERGENCY: 0 },
      });
    });

    it('finds keys by how their name or id begins, and takes nothing in the text for a pattern', async () => {
      const names = ['ci', 'ci-2', 'CI', 'c', 'xci', 'c%', 'c_', 'ci\u{1f600}', 'ci\uffff'];
      const made = names.map((name) => keyWith({ name }).key);
      for (const key of made) await store.keys.insert(key, entryWith());
      const found = async (prefix: string) =>
        (await allPages((page) => store.keys.list({ prefix }, page))).map(({ name }) => name).sort();
      expect(await found('ci')).toEqual(['ci', 'ci-2', 'ci\u{1f600}', 'ci\uffff'].sort());
      expect(await found('c%')).toEqual(['c%']);
      expect(await found('.*')).toEqual([]);
      expect(await found(made[3]?.id.slice(0, -1) ?? '')).toEqual(['c']);
      expect(await found('uid-apikey-')).toEqual([...names].sort());
    });

    it('raises last_use_time without making a new version', async () => {
      const { key } = keyWith();
      await store.keys.insert(key, entryWith());
      await store.keys.writeLastUses(new Map([[key.id, 9_000]]));
      await store.keys.writeLastUses(new Map([[key.id, 8_000]]));
      expect(await store.keys.get(key.id)).toEqual({ ...key, revision: 1, lastUseTime: 9_000 });
      const next = { ...key, etag: 'next' };
      await store.keys.replace(next, key.etag, 'UPDATED', entryWith());
      expect((await store.keys.get(key.id))?.lastUseTime).toBe(9_000);
    });

    it('takes a corrupt stored hash for a miss', async () => {
      const { key } = keyWith({ secrets: [{ hash: 'zz', createTime: 1 }] });
      await store.keys.insert(key, entryWith());
      expect((await store.keys.findByHash(hashSecret('audit_v1_x'))).key).toBeUndefined();
    });

    it('answers on facts as new as asked, or says that it cannot', async () => {
      const { key, secret } = keyWith();
      await store.keys.insert(key, entryWith());
      expect(await store.keys.findByHash(hashSecret(secret), 1)).toMatchObject({
        key: { id: key.id },
        revision: 1,
      });
      await expect(store.keys.findByHash(hashSecret(secret), 2)).rejects.toMatchObject({
        code: 'REVISION_NOT_REACHED',
      });
    });

    it('keeps everything over a restart', async () => {
      const { key, secret } = keyWith();
      await store.keys.insert(key, entryWith({ keyId: key.id }));
      await store.close();
      store = await adapter.open(url, clock);
      expect((await store.keys.findByHash(hashSecret(secret))).key?.id).toBe(key.id);
      expect(await store.keys.revision()).toBe(1);
      expect(await events()).toHaveLength(1);
    });

    it('shares nothing with another database', async () => {
      const other = await adapter.open(adapter.freshUrl(), clock);
      try {
        const { key, secret } = keyWith();
        await store.keys.insert(key, entryWith());
        expect((await other.keys.findByHash(hashSecret(secret))).key).toBeUndefined();
        expect(await other.audit.count()).toBe(0);
        expect(await other.keys.revision()).toBe(0);
      } finally {
        await other.close();
      }
    });

    // Only where there can be one.
    const several = adapter.severalProcesses ? it : () => undefined;
    several('shows a change to a second process', async () => {
      const second = await adapter.open(url, clock);
      try {
        const { key, secret } = keyWith();
        await store.keys.insert(key, entryWith());
        expect((await second.keys.findByHash(hashSecret(secret), 1)).key?.id).toBe(key.id);
      } finally {
        await second.close();
      }
    });
  });
}

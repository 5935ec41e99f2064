import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Key } from '../../../src/keys/key.ts';
import type { Alert } from '../../../src/keys/notices.ts';
import { completeRotation, RETIRED_MS, rotate } from '../../../src/keys/rotation.ts';
import { hashSecret, mintSecret } from '../../../src/keys/secret.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { HANGS_MS } from '../../support/hangs.ts';
import { allPages, entryWith, keyWith } from '../../support/keys.ts';
import type { Adapter } from './harness.ts';

/** Rotations, anomalies, alerts and the sweep lease. */
export function noticesContract(adapter: Adapter): void {
  describe(`${adapter.name}: rotations`, () => {
    let url: string;
    let store: Store;
    const clock = new TestClock(Date.now());
    beforeEach(async () => {
      url = adapter.freshUrl();
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    const minted = (n: number) => ({
      hash: hashSecret(mintSecret()),
      hint: 'h',
      rotationId: `rotation-${n}`,
    });
    const made = async (fields = {}) => {
      const { key, secret } = keyWith({ createTime: clock.now(), ...fields });
      const inserted = await store.keys.insert(key, entryWith());
      if (inserted.outcome !== 'INSERTED') throw new Error(inserted.outcome);
      return { key: inserted.key, hash: hashSecret(secret) };
    };
    const put = async (
      key: ReturnType<typeof keyWith>['key'],
      change: ReturnType<typeof rotate>,
      etag: string,
    ) => {
      const entry = entryWith({
        time: clock.now(),
        method: 'apikey.v1.ApiKeyAdmin/RotateKey',
        outcome: 'OK',
      });
      const stored = await store.keys.replace(
        { ...change.key, etag },
        key.etag,
        'ROTATED',
        entry,
        change.effects,
      );
      if (stored === undefined) throw new Error('not replaced');
      return stored;
    };

    it('finds the key by both secrets, then knows the retired one', async () => {
      const { key, hash } = await made();
      const second = minted(1);
      const active = await put(key, rotate(key, 'MANUAL', 60_000, second, clock.now()), 'e1');
      for (const each of [hash, second.hash]) {
        const found = await store.keys.findByHash(each);
        expect(found.key).toMatchObject({ id: key.id, rotation: { id: 'rotation-1', mode: 'MANUAL' } });
        expect(found.retired).toBeUndefined();
      }
      await put(active, completeRotation(active, clock.now()), 'e2');
      expect(await store.keys.findByHash(hash)).toMatchObject({ retired: true, key: { id: key.id } });
      expect((await store.keys.findByHash(second.hash)).retired).toBeUndefined();
      expect((await store.keys.findByHash(hashSecret(mintSecret()))).key).toBeUndefined();
      const [record] = (await store.rotations.list({}, { size: 9, after: undefined })).items;
      expect(record).toMatchObject({
        id: 'rotation-1',
        keyId: key.id,
        completeTime: clock.now(),
        oldUses: 0,
      });
    });

    it('leaves nothing of a change that lost its race', async () => {
      const { key } = await made();
      const change = rotate(key, 'MANUAL', 60_000, minted(1), clock.now());
      expect(
        await store.keys.replace(change.key, 'other', 'ROTATED', entryWith(), change.effects),
      ).toBeUndefined();
      expect((await store.rotations.list({}, { size: 9, after: undefined })).items).toEqual([]);
      expect((await store.keys.get(key.id))?.secrets).toEqual(key.secrets);
    });

    it('counts old uses beside the key, and notes the end of a grace once', async () => {
      const { key } = await made();
      const rotated = await put(key, rotate(key, 'MANUAL', 60_000, minted(1), clock.now()), 'e1');
      const uses = (n: number, lastTime: number) =>
        new Map([['rotation-1', { uses: n, lastTime, lastIp: '192.0.2.1' }]]);
      await store.rotations.addOldUses(uses(2, clock.now() + 1));
      await store.rotations.addOldUses(uses(3, clock.now() + 2));
      expect(await store.rotations.oldUses(['rotation-1', 'rotation-x'])).toEqual(
        new Map([['rotation-1', 5]]),
      );
      const [record] = (await store.rotations.list({ keyId: key.id }, { size: 9, after: undefined })).items;
      expect(record).toMatchObject({
        oldUses: 5,
        lastOldUseTime: clock.now() + 2,
        lastOldUseIp: '192.0.2.1',
      });
      expect((await store.keys.get(key.id))?.etag).toBe(rotated.etag);
      expect(await store.rotations.noteGraceEnded('rotation-1')).toBe(true);
      expect(await store.rotations.noteGraceEnded('rotation-1')).toBe(false);
    });

    it('lists rotations newest first, over pages', async () => {
      const keys: Key[] = [];
      for (let n = 0; n < 5; n++) {
        const { key } = await made();
        keys.push(key);
        await put(key, rotate(key, 'FORCED', 60_000, minted(n), clock.now() + (n % 2)), `e${n}`);
      }
      const all = await allPages((page) => store.rotations.list({}, page), 2);
      expect(all.map(({ id }) => id)).toEqual([3, 1, 4, 2, 0].map((n) => `rotation-${n}`));
      const one = await allPages((page) => store.rotations.list({ keyId: keys[2]?.id ?? '' }, page), 2);
      expect(one.map(({ id }) => id)).toEqual(['rotation-2']);
    });

    it('finds keys whose time has come, earliest first, over pages', async () => {
      const now = clock.now();
      const soon = [];
      for (let n = 0; n < 4; n++)
        soon.push((await made({ expireTime: now + 1_000 - n, rotateEveryMs: 5_000 + n })).key);
      await made({ expireTime: now + 9_000 });
      await made({ expireTime: now + 1, revokeTime: now });
      const ids = async (kind: 'EXPIRY' | 'ROTATION' | 'ROTATION_GRACE', until: number) =>
        (await allPages((page) => store.keys.due(kind, until, page), 2)).map(({ id }) => id);
      expect(await ids('EXPIRY', now + 1_000)).toEqual(soon.map(({ id }) => id).reverse());
      expect(await ids('EXPIRY', now + 998)).toHaveLength(2);
      // Secrets of keyWith are born at 1 000, so all of these are due.
      expect(await ids('ROTATION', now)).toEqual(soon.map(({ id }) => id));
      expect(await ids('ROTATION_GRACE', now + 60_000)).toEqual([]);
      const [key] = soon;
      if (key === undefined) throw new Error('no key');
      await put(key, rotate(key, 'MANUAL', 60_000, minted(1), now), 'e1');
      expect(await ids('ROTATION_GRACE', now + 59_999)).toEqual([]);
      expect(await ids('ROTATION_GRACE', now + 60_000)).toEqual([key.id]);
      expect(await ids('ROTATION', now)).not.toContain(key.id);
    });

    it('finds keys whose time is the same each once, wherever a page ends', async () => {
      const now = clock.now();
      const ids: string[] = [];
      for (let n = 0; n < 7; n++) {
        const { key } = await made({ expireTime: now + 1_000, rotateEveryMs: 5_000 });
        await put(key, rotate(key, 'MANUAL', 60_000, minted(n), now), `e${n}`);
        ids.push(key.id);
      }
      for (const kind of ['EXPIRY', 'ROTATION', 'ROTATION_GRACE'] as const)
        for (const size of [1, 2, 3, 7]) {
          const due = await allPages((page) => store.keys.due(kind, now + 60_000, page), size);
          expect(due.map(({ id }) => id)).toEqual(ids.toSorted());
        }
    });

    if (!adapter.ownClock)
      it('forgets a retired secret after 90 days', async () => {
        const { key, hash } = await made();
        await put(key, rotate(key, 'FORCED', 0, minted(1), clock.now()), 'e1');
        clock.advance(RETIRED_MS - 1);
        await store.sweep();
        expect((await store.keys.findByHash(hash)).retired).toBe(true);
        clock.advance(2);
        await store.sweep();
        expect((await store.keys.findByHash(hash)).key).toBeUndefined();
      });
  });

  describe(`${adapter.name}: notices`, () => {
    let url: string;
    let store: Store;
    const clock = new TestClock(Date.now());
    beforeEach(async () => {
      url = adapter.freshUrl();
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    const trip = (fields = {}) => ({
      keyId: 'uid-apikey-0000000000000001',
      type: 'MULTIPLE_IPS' as const,
      count: 1,
      firstTime: clock.now(),
      lastTime: clock.now(),
      ...fields,
    });

    it('keeps one open anomaly for a key and type, however many trips at once', async () => {
      const tripped = await Promise.all(
        Array.from({ length: 5 }, (_, i) => store.anomalies.trip(trip({ lastTime: clock.now() + i }))),
      );
      expect(new Set(tripped.map(({ id }) => id)).size).toBe(1);
      expect(tripped.filter(({ count }) => count === 1)).toHaveLength(1);
      await store.anomalies.trip(trip({ type: 'HIGH_ERROR_RATE', firstTime: clock.now() + 5 }));
      const all = await allPages((page) => store.anomalies.list({}, page), 1);
      expect(all.map(({ type, count }) => [type, count])).toEqual([
        ['HIGH_ERROR_RATE', 1],
        ['MULTIPLE_IPS', 5],
      ]);
      expect(all[1]?.lastTime).toBe(clock.now() + 4);
      expect(
        await allPages((page) => store.anomalies.list({ type: 'HIGH_ERROR_RATE', state: 'OPEN' }, page)),
      ).toHaveLength(1);
      expect(await allPages((page) => store.anomalies.list({ keyId: 'other' }, page))).toEqual([]);
    });

    it('resolves once, with the event, and opens a new record afterwards', async () => {
      const { id } = await store.anomalies.trip(trip());
      const entry = entryWith({ method: 'apikey.v1.ApiKeyAdmin/ResolveAnomaly', outcome: 'OK' });
      const resolved = await store.anomalies.resolve(id, clock.now() + 7, entry);
      expect(resolved).toMatchObject({ state: 'RESOLVED', resolveTime: clock.now() + 7 });
      expect(await store.anomalies.resolve(id, clock.now() + 99, entry)).toEqual(resolved);
      expect(await store.anomalies.resolve('anomaly-x', clock.now(), entry)).toBeUndefined();
      expect(
        (await store.audit.list({ method: entry.method }, { size: 9, after: undefined })).items,
      ).toHaveLength(2);
      expect((await store.anomalies.trip(trip())).id).not.toBe(id);
      expect(await store.anomalies.deleteResolvedBefore(clock.now() + 7, 9)).toBe(0);
      expect(await store.anomalies.deleteResolvedBefore(clock.now() + 8, 9)).toBe(1);
      expect(await allPages((page) => store.anomalies.list({}, page))).toHaveLength(1);
    });

    const alert = (id: string, time: number): Alert => ({
      id,
      type: 'LOCKOUT',
      time,
      keyId: '',
      clientIp: '192.0.2.1',
      text: 'text',
      detail: { expire_time: 'x' },
    });

    it('has one record of an alert however often it is raised, until it is delivered and old', async () => {
      const now = clock.now();
      const raised = await Promise.all(Array.from({ length: 8 }, () => store.alerts.insert(alert('a', now))));
      expect(raised.filter(Boolean)).toHaveLength(1);
      await store.alerts.insert(alert('b', now + 1));
      await store.alerts.insert(alert('c', now - 1));
      expect(await store.alerts.get('a')).toEqual(alert('a', now));
      expect(await store.alerts.get('x')).toBeUndefined();
      expect((await allPages((page) => store.alerts.list(now, page), 1)).map(({ id }) => id)).toEqual([
        'a',
        'b',
      ]);
      expect((await store.alerts.undelivered(now + 1, 9)).map(({ id }) => id)).toEqual(['c', 'a']);
      await store.alerts.markDelivered('c');
      expect((await store.alerts.undelivered(now + 2, 9)).map(({ id }) => id)).toEqual(['a', 'b']);
      // What is not delivered is kept.
      expect(await store.alerts.deleteBefore(now + 2, 9)).toBe(1);
      expect(await store.alerts.get('a')).toBeDefined();
    });

    if (adapter.severalProcesses)
      it('gives the sweep to one process, and to another when that is gone', async () => {
        const second = await adapter.open(url, clock);
        try {
          expect(await store.sweepLease.take(300)).toBe(true);
          expect(await store.sweepLease.take(300)).toBe(true);
          expect(await second.sweepLease.take(300)).toBe(false);
          const begun = Date.now();
          while (!(await second.sweepLease.take(60_000))) expect(Date.now() - begun).toBeLessThan(HANGS_MS);
          expect(Date.now() - begun).toBeGreaterThan(100);
          expect(await store.sweepLease.take(300)).toBe(false);
          await second.sweepLease.release();
          expect(await store.sweepLease.take(300)).toBe(true);
        } finally {
          await second.close();
        }
      });
  });
}

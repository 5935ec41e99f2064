// If this fails, a revoked key is still good on this process, or every call goes to the database.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Key } from '../../src/keys/key.ts';
import { CachedKeyStore } from '../../src/store/cached-key-store.ts';
import { Lease } from '../../src/store/lease.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import type { Store } from '../../src/store/store.ts';
import { TestClock } from '../support/clock.ts';
import { GatedKeyStore } from '../support/doubles.ts';
import { entryWith, keyWith } from '../support/keys.ts';
import { LEASE, LOCKOUT } from './contract/harness.ts';

describe('cached key store', () => {
  let folder: string;
  let store: Store;
  let inner: GatedKeyStore;
  let cache: CachedKeyStore;
  let clock: TestClock;
  let key: Key;
  const hashOf = (of: Key) => of.secrets[0]?.hash ?? '';

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-cache-'));
    clock = new TestClock();
    store = await openSqliteStore({
      url: `sqlite:${folder}/x.db`,
      clock,
      lockout: LOCKOUT,
      lease: LEASE,
      warn: () => {},
    });
    inner = new GatedKeyStore(store.keys);
    cache = new CachedKeyStore(inner.store, { ttlMs: 300_000, maxRecords: 3 }, clock);
    key = keyWith().key;
    await cache.insert(key, entryWith());
  });
  afterEach(async () => {
    await store.close();
    rmSync(folder, { recursive: true });
  });

  const find = async (of: Key) => (await cache.findByHash(hashOf(of))).key;
  const change = (etag: string, fields: Partial<Key>) =>
    cache.replace({ ...key, ...fields, etag: `${etag}+` }, etag, 'UPDATED', entryWith());

  it('reads a record once, tells its age, and reads it again after its time', async () => {
    await find(key);
    clock.advance(299_999);
    expect(await cache.findByHash(hashOf(key))).toMatchObject({ key: { id: key.id }, ageMs: 299_999 });
    expect(inner.reads).toBe(1);
    clock.advance(1);
    expect(await cache.findByHash(hashOf(key))).toMatchObject({ ageMs: 0 });
    expect(inner.reads).toBe(2);
  });

  it('shows a change to the very next call', async () => {
    await find(key);
    await change(key.etag, { disabled: true });
    expect((await find(key))?.disabled).toBe(true);
  });

  it('finds keys that were unknown a moment ago, once they are imported', async () => {
    const fresh = keyWith().key;
    expect(await find(fresh)).toBeUndefined();
    await cache.insertMany([{ key: fresh, entry: entryWith() }]);
    expect((await find(fresh))?.id).toBe(fresh.id);
    expect((await cache.holdersOf([hashOf(fresh)])).size).toBe(1);
  });

  it('neither keeps nor shares a read that was sent before a change', async () => {
    inner.gated = true;
    const early = find(key);
    while (inner.waiting === 0) await new Promise(setImmediate);
    inner.gated = false;
    await change(key.etag, { disabled: true });
    // A call that starts after the change must not join the old read.
    expect((await find(key))?.disabled).toBe(true);
    inner.open();
    expect((await early)?.disabled).toBe(false);
    // Nor may the late reply take the place of the new record.
    expect((await find(key))?.disabled).toBe(true);
  });

  it('sends one read for many that wait for the same key', async () => {
    inner.gated = true;
    const waiting = Array.from({ length: 50 }, () => find(key));
    while (inner.waiting === 0) await new Promise(setImmediate);
    inner.open();
    expect((await Promise.all(waiting)).every((found) => found?.id === key.id)).toBe(true);
    expect(inner.reads).toBe(1);
  });

  it('keeps a miss for five seconds at most, and drops it when the key is created', async () => {
    const { key: late } = keyWith();
    expect(await find(late)).toBeUndefined();
    expect(await find(late)).toBeUndefined();
    expect(inner.reads).toBe(1);
    clock.advance(5_000);
    expect(await find(late)).toBeUndefined();
    expect(inner.reads).toBe(2);
    await cache.insert(late, entryWith());
    expect((await find(late))?.id).toBe(late.id);
  });

  it('is bounded, misses cannot push out records', async () => {
    const keys = [key, ...Array.from({ length: 3 }, () => keyWith().key)];
    for (const added of keys.slice(1)) await cache.insert(added, entryWith());
    for (const each of keys) await find(each);
    for (let i = 0; i < 10; i++) await find(keyWith().key);
    const before = inner.reads;
    await find(keys[3] as Key);
    expect(inner.reads).toBe(before);
    await find(key);
    expect(inner.reads).toBe(before + 1);
  });

  it('forgets both secrets of a key', async () => {
    const two = keyWith({ secrets: [...keyWith().key.secrets, ...keyWith().key.secrets] }).key;
    await cache.insert(two, entryWith());
    for (const { hash } of two.secrets) expect((await cache.findByHash(hash)).key?.id).toBe(two.id);
    expect(inner.reads).toBe(1);
    await cache.replace({ ...two, disabled: true, etag: 'x' }, two.etag, 'UPDATED', entryWith());
    for (const { hash } of two.secrets) expect((await cache.findByHash(hash)).key?.disabled).toBe(true);
  });

  it('reads for a revision that is newer than what it holds', async () => {
    await find(key);
    const { key: other } = keyWith();
    await store.keys.insert(other, entryWith());
    expect((await cache.findByHash(hashOf(key), 2)).revision).toBe(2);
    expect(inner.reads).toBe(2);
  });

  describe('with a lease', () => {
    const lease = { holds: true };
    let leased: CachedKeyStore;
    beforeEach(() => {
      lease.holds = true;
      leased = new CachedKeyStore(inner.store, { ttlMs: 300_000, maxRecords: 3 }, clock, lease);
    });
    const found = async (of: Key) => leased.findByHash(hashOf(of));
    const reads = async (calls: () => Promise<unknown>) => {
      const before = inner.reads;
      await calls();
      return inner.reads - before;
    };

    it('reads the store on every call once the lease has run out, and keeps nothing', async () => {
      await found(key);
      expect(await reads(() => found(key))).toBe(0);
      lease.holds = false;
      expect(await reads(() => Promise.all([found(key), found(key)]))).toBe(2);
      expect(leased.peekCached(hashOf(key))).toBeUndefined();
      lease.holds = true;
      // The record from before the gap was current under every lease there was: a poll comes first.
      leased.apply({ revision: 2, keyIds: undefined });
      expect(await reads(() => found(key))).toBe(1);
    });

    it('drops what others changed, all of it when that is not known, and tells how new the rest is', async () => {
      const other = keyWith().key;
      await leased.insert(other, entryWith());
      await found(key);
      await found(other);
      leased.apply({ revision: 9, keyIds: [key.id] });
      expect(await reads(() => found(key))).toBe(1);
      expect(await reads(() => found(other))).toBe(0);
      expect(leased.peekCached(hashOf(other))?.revision).toBe(9);
      leased.apply({ revision: 10, keyIds: undefined });
      expect(await reads(() => found(other))).toBe(1);
    });

    it('forgets that a key was not there when others made one', async () => {
      const unborn = keyWith().key;
      expect((await found(unborn)).key).toBeUndefined();
      await store.keys.insert(unborn, entryWith());
      leased.apply({ revision: 3, keyIds: [unborn.id] });
      expect((await found(unborn)).key?.id).toBe(unborn.id);
    });

    it('neither keeps nor shares a read that was sent before a poll', async () => {
      inner.gated = true;
      const early = found(key);
      while (inner.waiting === 0) await new Promise(setImmediate);
      inner.gated = false;
      await store.keys.replace({ ...key, disabled: true, etag: 'e' }, key.etag, 'UPDATED', entryWith());
      leased.apply({ revision: 2, keyIds: [key.id] });
      expect((await found(key)).key?.disabled).toBe(true);
      inner.open();
      expect((await early).key?.disabled).toBe(false);
      expect((await found(key)).key?.disabled).toBe(true);
    });

    it('says of what was found whether it may still be acted on', async () => {
      const read = await found(key);
      const kept = await found(key);
      lease.holds = false;
      expect([leased.isCurrent(read), leased.isCurrent(kept)]).toEqual([true, false]);
    });
  });
});

describe('lease', () => {
  const clock = {
    monotonicMs: 1_000,
    wallMs: 1_000_000,
    monotonic: () => clock.monotonicMs,
    now: () => clock.wallMs,
  };
  const pass = (monotonic: number, wall = monotonic) => {
    clock.monotonicMs += monotonic;
    clock.wallMs += wall;
  };

  it('holds for its time from the start of the poll, by whichever clock says more', () => {
    const lease = new Lease(clock, 1_000);
    expect(lease.holds).toBe(false);
    const start = lease.now();
    pass(400);
    lease.renew(start);
    pass(599);
    expect(lease.holds).toBe(true);
    pass(1);
    expect(lease.holds).toBe(false);
    lease.renew(lease.now());
    // A machine that was suspended: its monotonic clock stood still.
    pass(0, 1_000);
    expect(lease.holds).toBe(false);
    lease.renew(lease.now());
    pass(1_000, 0);
    expect(lease.holds).toBe(false);
    lease.renew(lease.now());
    // A wall clock that was set back says nothing that can be trusted.
    pass(1, -1);
    expect(lease.holds).toBe(false);
  });
});

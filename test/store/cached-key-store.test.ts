// If this fails, a revoked key is still good on this process, or every call goes to the database.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Key } from '../../src/keys/key.ts';
import { CachedKeyStore } from '../../src/store/cached-key-store.ts';
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
});

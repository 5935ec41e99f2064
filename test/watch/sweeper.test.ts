// If this fails, the audit grows without end, or is deleted too early, and last uses are lost.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Retention } from '../../src/audit/retention.ts';
import { BufferedLastUses } from '../../src/store/last-uses.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import type { Store } from '../../src/store/store.ts';
import { Sweeper } from '../../src/watch/sweeper.ts';
import { LEASE, LOCKOUT } from '../store/contract/harness.ts';
import { TestClock } from '../support/clock.ts';
import { entryWith, keyWith } from '../support/keys.ts';

const DAY_MS = 86_400_000;

describe('sweeper', () => {
  let folder: string;
  let store: Store;
  let clock: TestClock;
  const told: string[] = [];
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-sweep-'));
    clock = new TestClock();
    store = await openSqliteStore({
      url: `sqlite:${folder}/x.db`,
      clock,
      lockout: LOCKOUT,
      lease: LEASE,
      warn: () => {},
    });
  });
  afterEach(async () => {
    await store.close();
    rmSync(folder, { recursive: true });
  });
  const sweeper = (retentionDays: number, over: Partial<Store> = {}) =>
    new Sweeper({
      store: { ...store, ...over },
      lease: over.sweepLease ?? store.sweepLease,
      retention: new Retention(store.audit, clock),
      alertLog: store.alerts,
      anomalies: store.anomalies,
      anomalyWatch: { finishAbandoned: async () => {} },
      alerts: { redeliver: async () => {} },
      dueKeys: { sweep: async () => {} },
      clock,
      intervalMs: 1_000,
      usage: store.usage,
      retentionDays,
      usageRetentionDays: 400,
      warn: (text) => told.push(text),
    });

  it('keeps events to the day, in steps smaller than what there is', async () => {
    const old = clock.now() - 90 * DAY_MS;
    await Promise.all(
      Array.from({ length: 1_200 }, (_, i) => store.audit.record(entryWith({ time: old - 1 - i }))),
    );
    await store.audit.record(entryWith({ time: old }));
    await sweeper(0).sweep();
    expect(await store.audit.count()).toBe(1_201);
    await sweeper(90).sweep();
    // What is left, and a checkpoint for each of the three steps.
    expect(await store.audit.count()).toBe(4);
  });

  it('leaves the work to the process whose turn it is', async () => {
    await store.audit.record(entryWith({ time: 0 }));
    let swept = 0;
    const counted = { sweep: async () => void swept++ };
    const lease = { take: async () => false, release: async () => {} };
    await sweeper(90, { ...counted, sweepLease: lease }).sweep();
    expect([swept, await store.audit.count()]).toEqual([0, 1]);
    await sweeper(90, counted).sweep();
    expect(swept).toBe(1);
  });

  it('tells a failing sweep and goes on with the next', async () => {
    const failing = sweeper(90, { sweep: () => Promise.reject(new Error('away')) });
    await failing.sweep();
    expect(told).toEqual(['sweep failed, the next one tries again']);
  });

  it('drops counters that are over, and only those', async () => {
    await store.quota.take({ bucket: 'b', limits: [{ name: 'm', limit: 1, windowMs: 1_000 }], cost: 1 });
    await store.quota.take({
      bucket: 'c',
      limits: [{ name: 'm', limit: 1, windowMs: 10 * DAY_MS }],
      cost: 1,
    });
    await store.audit.record(entryWith());
    clock.advance(3 * DAY_MS);
    await sweeper(0).sweep();
    expect(
      (await store.quota.peek({ bucket: 'b', limits: [{ name: 'm', limit: 1, windowMs: 1_000 }], cost: 1 }))
        .admitted,
    ).toBe(true);
    expect(
      (
        await store.quota.peek({
          bucket: 'c',
          limits: [{ name: 'm', limit: 1, windowMs: 10 * DAY_MS }],
          cost: 1,
        })
      ).admitted,
    ).toBe(false);
  });

  it('writes the latest use of each key, once for many', async () => {
    const { key } = keyWith();
    await store.keys.insert(key, entryWith());
    const uses = new BufferedLastUses(store.keys, () => {});
    for (const time of [5_000, 6_000, 7_000]) uses.note(key.id, time);
    await uses.flush();
    expect((await store.keys.get(key.id))?.lastUseTime).toBe(7_000);
  });
});

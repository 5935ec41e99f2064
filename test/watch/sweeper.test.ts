// If this fails, the audit grows without end, or is deleted too early, and last uses are lost.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Checkpoints } from '../../src/audit/checkpoints.ts';
import { Retention } from '../../src/audit/retention.ts';
import { BufferedLastUses } from '../../src/store/last-uses.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import type { Store } from '../../src/store/store.ts';
import { SettledTime } from '../../src/watch/settled-time.ts';
import { Sweeper, type SweeperParts } from '../../src/watch/sweeper.ts';
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
  type Over = Partial<Store> & Partial<Pick<SweeperParts, 'time' | 'retention' | 'dueKeys'>>;
  const sweeper = (retentionDays: number, over: Over = {}) =>
    new Sweeper({
      store: { ...store, ...over },
      lease: over.sweepLease ?? store.sweepLease,
      retention: over.retention ?? new Retention(store.audit, store.chainLog, clock),
      checkpoints: new Checkpoints(store.audit, store.chainLog, store.chain, clock),
      alertLog: store.alerts,
      anomalies: store.anomalies,
      anomalyWatch: { finishAbandoned: async () => {} },
      alerts: { redeliver: async () => {} },
      dueKeys: over.dueKeys ?? { sweep: async () => {} },
      time: over.time ?? { look: () => ({ now: clock.now(), steady: true, settled: true }) },
      intervalMs: 1_000,
      usage: store.usage,
      retentionDays,
      usageRetentionDays: 400,
      warn: (text) => told.push(text),
    });

  it('deletes events older than the retention, in bounded steps', async () => {
    const old = clock.now() - 90 * DAY_MS;
    await Promise.all(
      Array.from({ length: 1_200 }, (_, i) => store.audit.record(entryWith({ time: old - 1 - i }))),
    );
    await store.audit.record(entryWith({ time: old }));
    await sweeper(0).sweep();
    expect(await store.audit.count()).toBe(1_201);
    await sweeper(90).sweep();
    // The remaining event, and a checkpoint for each of the three steps.
    expect(await store.audit.count()).toBe(4);
  });

  it('continues at once while there are more old events than one sweep deletes', async () => {
    const left = [100_499];
    const asked = new Set<number>();
    const retention = {
      deleteBefore: async (time: number, limit: number) => {
        asked.add(time);
        const deleted = Math.min(limit, left[0] ?? 0);
        left[0] = (left[0] ?? 0) - deleted;
        if (left[0] === 0) left.shift();
        return deleted;
      },
    };
    const busy = sweeper(90, { retention });
    expect(await busy.sweep()).toBe(false);
    expect(left).toEqual([499]);
    clock.advance(DAY_MS);
    expect(await busy.sweep()).toBe(true);
    // No clock takes more away before that is gone.
    expect(asked.size).toBe(1);
    // A sweep that is not this process's turn has nothing left to do.
    const lease = { take: async () => false, release: async () => {} };
    expect(await sweeper(90, { retention, sweepLease: lease }).sweep()).toBe(true);
  });

  it('does nothing in a process whose turn it is not', async () => {
    await store.audit.record(entryWith({ time: 0 }));
    let swept = 0;
    const counted = { sweep: async () => void swept++ };
    const lease = { take: async () => false, release: async () => {} };
    await sweeper(90, { ...counted, sweepLease: lease }).sweep();
    expect([swept, await store.audit.count()]).toEqual([0, 1]);
    await sweeper(90, counted).sweep();
    expect(swept).toBe(1);
  });

  it('logs a failed sweep and continues with the next', async () => {
    const failing = sweeper(90, { sweep: () => Promise.reject(new Error('away')) });
    await failing.sweep();
    expect(told).toEqual(['sweep failed, the next one tries again']);
  });

  it('deletes no event when a clock is 100 days ahead for five seconds, also just after the start', async () => {
    await Promise.all(
      Array.from({ length: 73 }, (_, i) => store.audit.record(entryWith({ time: clock.now() - i }))),
    );
    const one = sweeper(90, { time: new SettledTime(clock, () => 0) });
    await one.sweep();
    clock.advance(2 * 3_600_000);
    clock.step(100 * DAY_MS);
    await one.sweep();
    clock.advance(5_000);
    await one.sweep();
    clock.step(-100 * DAY_MS);
    await one.sweep();
    expect(await store.audit.count()).toBe(73);
    // Also where the step stays: what is old is not deleted before the clocks have agreed for an hour, and then a day's worth.
    clock.step(100 * DAY_MS);
    await one.sweep();
    clock.advance(3_599_000);
    await one.sweep();
    expect(await store.audit.count()).toBe(73);
    clock.advance(1_000);
    await one.sweep();
    expect(await store.audit.count()).toBeLessThan(73);
  });

  it('notices no key after a clock was set, until it has gone well for an hour', async () => {
    let looks = 0;
    const dueKeys = { sweep: async () => void looks++ };
    const one = sweeper(90, { dueKeys, time: new SettledTime(clock, () => 0) });
    await one.sweep();
    expect(looks).toBe(1);
    clock.step(100 * DAY_MS);
    await one.sweep();
    clock.advance(3_599_999);
    await one.sweep();
    expect(looks).toBe(1);
    clock.advance(1);
    await one.sweep();
    expect(looks).toBe(2);
  });

  it('deletes nothing when the clock of the store differs', () => {
    let skew = 0;
    const time = new SettledTime(clock, () => skew);
    clock.advance(3_600_000);
    expect(time.look()).toEqual({ now: clock.now(), steady: true, settled: true });
    skew = -61_000;
    expect(time.look()).toMatchObject({ steady: false, settled: false });
    skew = 0;
    clock.advance(3_599_999);
    expect(time.look()).toMatchObject({ steady: false, settled: false });
    clock.advance(1);
    expect(time.look()).toMatchObject({ steady: true, settled: true });
  });

  it('deletes only counters whose window is over', async () => {
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

  it('writes the last use of each key, in one batch', async () => {
    const { key } = keyWith();
    await store.keys.insert(key, entryWith());
    const uses = new BufferedLastUses(store.keys, () => {});
    for (const time of [5_000, 6_000, 7_000]) uses.note(key.id, time);
    await uses.flush();
    expect((await store.keys.get(key.id))?.lastUseTime).toBe(7_000);
  });
});

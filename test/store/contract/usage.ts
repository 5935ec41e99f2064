import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HOUR_MS, isUse } from '../../../src/audit/usage-counter.ts';
import type { AuditRecord } from '../../../src/keys/ports/audit.ts';
import type { UsageRow } from '../../../src/keys/ports/usage.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { allPages, entryWith, keyWith } from '../../support/keys.ts';
import type { Adapter } from './harness.ts';

const DAY_MS = 24 * HOUR_MS;
const START = 500_000 * HOUR_MS;
const OUTCOMES = ['DECISION_VALID', 'DECISION_REVOKED', 'DECISION_NOT_FOUND', 'OK', 'UNAUTHENTICATED'];

/** Counted anew from the events. */
function expected(events: readonly AuditRecord[], keyId: string, stepMs: number): UsageRow[] {
  const counts = new Map<string, UsageRow>();
  for (const event of events) {
    if (!isUse(event) || (keyId !== '' && event.keyId !== keyId)) continue;
    const time = Math.floor(event.time / stepMs) * stepMs;
    const name = `${time} ${event.outcome}`;
    counts.set(name, { time, outcome: event.outcome, count: (counts.get(name)?.count ?? 0) + 1 });
  }
  return [...counts.values()].sort((a, b) => a.time - b.time || (a.outcome < b.outcome ? -1 : 1));
}

export function usageContract(adapter: Adapter): void {
  describe(`${adapter.name}: usage`, () => {
    let url: string;
    let store: Store;
    const clock = new TestClock(START);
    beforeEach(async () => {
      url = adapter.freshUrl();
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    const keys = ['uid-apikey-0000000000000001', 'uid-apikey-0000000000000002', ''];
    let seed = 1;
    const next = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    const record = (to: Store, events: number) =>
      Promise.all(
        Array.from({ length: events }, () =>
          to.audit.record(
            entryWith({
              keyId: keys[next(keys.length)] ?? '',
              outcome: OUTCOMES[next(OUTCOMES.length)] ?? '',
              time: START + next(50) * HOUR_MS + next(HOUR_MS),
              dryRun: next(5) === 0,
            }),
          ),
        ),
      );
    const range = { startTime: START, endTime: START + 51 * HOUR_MS };
    /** Every count of every key and step is that over the log. */
    const agrees = async (with_: Store) => {
      const events = await allPages((page) => with_.audit.list({}, page), 1_000);
      for (const keyId of keys) {
        for (const stepMs of [HOUR_MS, DAY_MS]) {
          const filter = keyId === '' ? range : { ...range, keyId };
          expect(await with_.usage.read(filter, stepMs)).toEqual(expected(events, keyId, stepMs));
        }
      }
      return events.length;
    };

    it('counts what the log holds, whenever it is asked', async () => {
      for (let round = 0; round < 4; round++) {
        await record(store, 300);
        await agrees(store);
      }
      expect(await agrees(store)).toBe(1_200);
    });

    it('counts on after a restart, and what an earlier version or a crash left uncounted', async () => {
      await record(store, 200);
      await store.usage.flush();
      await record(store, 200);
      await store.close();
      await adapter.forgetUsage(url, 'ROUND_CUT_SHORT');
      store = await adapter.open(url, clock);
      await record(store, 200);
      await store.sweep();
      await agrees(store);
      await store.close();
      await adapter.forgetUsage(url, 'ALL');
      store = await adapter.open(url, clock);
      await store.sweep();
      await agrees(store);
    });

    it('counts hours before 1970 and far ahead in the hour that they are in', async () => {
      const times = [-1, -HOUR_MS, 0, 8_000_000_000_000_000];
      for (const time of times)
        await store.audit.record(entryWith({ keyId: keys[0] ?? '', outcome: 'DECISION_VALID', time }));
      const rows = await store.usage.read({ startTime: -DAY_MS, endTime: DAY_MS }, HOUR_MS);
      expect(rows.map(({ time, count }) => [time, count])).toEqual([
        [-HOUR_MS, 2],
        [0, 1],
      ]);
      const days = await store.usage.read({ startTime: -DAY_MS, endTime: DAY_MS }, DAY_MS);
      expect(days.map(({ time, count }) => [time, count])).toEqual([
        [-DAY_MS, 2],
        [0, 1],
      ]);
    });

    it('adds up the keys that belong to an owner', async () => {
      const [mine, other] = [keyWith({ ownerId: 'me' }).key, keyWith({ ownerId: 'you' }).key];
      for (const { id } of [mine, mine, other])
        await store.audit.record(entryWith({ keyId: id, outcome: 'DECISION_VALID', time: START }));
      for (const key of [mine, other]) await store.keys.insert(key, entryWith());
      const counts = await store.usage.read({ ...range, ownerId: 'me' }, HOUR_MS);
      expect(counts).toEqual([{ time: START, outcome: 'DECISION_VALID', count: 2 }]);
      expect(await store.usage.read({ ...range, ownerId: 'nobody' }, HOUR_MS)).toEqual([]);
    });

    it('forgets old hours a part at a time, and keeps their events', async () => {
      await record(store, 300);
      await store.usage.flush();
      const before = await store.audit.count();
      let deleted = 0;
      for (let step = 7; step === 7; deleted += step)
        step = await store.usage.deleteBefore(START + 20 * HOUR_MS, 7);
      expect(deleted).toBeGreaterThan(20);
      const left = await store.usage.read(range, HOUR_MS);
      expect(Math.min(...left.map(({ time }) => time))).toBeGreaterThanOrEqual(START + 20 * HOUR_MS);
      expect(await store.audit.count()).toBe(before);
    });

    it('lets retention delete only events that are counted', async () => {
      await record(store, 100);
      expect(await store.chainLog.expiredPrefixes(START + 100 * HOUR_MS, 1_000)).toEqual([]);
      await store.usage.flush();
      const [prefix] = await store.chainLog.expiredPrefixes(START + 100 * HOUR_MS, 1_000);
      expect(prefix?.events).toBe(100);
    });

    if (adapter.severalProcesses) {
      it('counts each of several processes once, also one that is taken for gone and is not', async () => {
        const others = [await adapter.open(url, clock), await adapter.open(url, clock)];
        for (let round = 0; round < 3; round++) {
          for (const one of [store, ...others]) await record(one, 100);
          // None of them is registered, as they never polled: each sweep counts the chains of all.
          await Promise.all([store, ...others].map((one) => one.sweep()));
        }
        for (const one of others) await one.usage.flush();
        await agrees(store);
        for (const one of others) await one.close();
      });
    }
  });
}

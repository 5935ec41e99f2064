import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { QuotaRequest } from '../../../src/keys/quota.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { allPages, entryWith } from '../../support/keys.ts';
import { type Adapter, LOCKOUT } from './harness.ts';

const limit = (name: string, max: number, windowMs = 600_000) => ({ name, limit: max, windowMs });

export function limitsContract(adapter: Adapter): void {
  /** Only for stores that serve several processes: elsewhere there is nothing to test. */
  const several = (name: string, test: () => Promise<void>) => {
    if (adapter.severalProcesses) it(name, test);
  };
  describe(`${adapter.name}: quotas`, () => {
    let url: string;
    let store: Store;
    let clock: TestClock;
    beforeEach(async () => {
      url = adapter.freshUrl();
      clock = new TestClock(Date.now());
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    const ask = (over: Partial<QuotaRequest> = {}): QuotaRequest => ({
      bucket: 'b',
      limits: [limit('m', 20)],
      cost: 1,
      ...over,
    });
    const admitted = (answers: readonly { admitted: boolean }[]) =>
      answers.filter((answer) => answer.admitted).length;

    it('admits exactly 20 of 50 at once', async () => {
      const answers = await Promise.all(Array.from({ length: 50 }, () => store.quota.take(ask())));
      expect(admitted(answers)).toBe(20);
      expect(new Set(answers.filter((a) => a.admitted).map((a) => a.states[0]?.remaining))).toEqual(
        new Set(Array.from({ length: 20 }, (_, i) => i)),
      );
    });

    several('admits exactly 20 of 50 from two processes', async () => {
      const second = await adapter.open(url, clock);
      try {
        const answers = await Promise.all(
          Array.from({ length: 50 }, (_, i) => (i % 2 ? store : second).quota.take(ask({ bucket: 'two' }))),
        );
        expect(admitted(answers)).toBe(20);
      } finally {
        await second.close();
      }
    });

    it('takes from all limits or from none', async () => {
      const limits = [limit('wide', 100), limit('narrow', 5, 900_000)];
      expect((await store.quota.take(ask({ limits, cost: 4 }))).admitted).toBe(true);
      const denied = await store.quota.take(ask({ limits, cost: 2 }));
      expect(denied.admitted).toBe(false);
      expect(denied.states.map(({ remaining, exceeded }) => ({ remaining, exceeded }))).toEqual([
        { remaining: 96, exceeded: false },
        { remaining: 1, exceeded: true },
      ]);
      expect(denied.states[1]?.retryAfterMs).toBeGreaterThan(890_000);
      expect(
        (await store.quota.take(ask({ limits, cost: 1 }))).states.map(({ remaining }) => remaining),
      ).toEqual([95, 0]);
    });

    it('consumes nothing for a cost above the limit, and says that waiting is no use', async () => {
      await store.quota.take(ask({ cost: 12 }));
      const denied = await store.quota.take(ask({ cost: 50 }));
      expect(denied).toMatchObject({ admitted: false, states: [{ remaining: 8, retryAfterMs: undefined }] });
      expect((await store.quota.take(ask({ cost: 8 }))).admitted).toBe(true);
    });

    it('counts exactly what it admitted, with costs and several limits at once', async () => {
      const limits = [limit('a', 150), limit('b', 170, 700_000), limit('c', 1_000, 800_000)];
      const costs = Array.from({ length: 120 }, (_, i) => 1 + ((i * 7) % 12));
      const answers = await Promise.all(costs.map((cost) => store.quota.take(ask({ limits, cost }))));
      const taken = costs.reduce((sum, cost, i) => sum + (answers[i]?.admitted ? cost : 0), 0);
      // All or nothing: the narrowest limit decides for all, and nothing more would have fitted.
      expect(taken).toBeGreaterThan(150 - 12);
      const { states } = await store.quota.peek(ask({ limits, cost: 1_001 }));
      expect(states.map(({ remaining }) => remaining)).toEqual([150 - taken, 170 - taken, 1_000 - taken]);
    });

    it('opens no window for a denial', async () => {
      const denied = await store.quota.take(ask({ cost: 21 }));
      expect(denied.states[0]).toMatchObject({ remaining: 20, resetTime: undefined });
    });

    it('counts keys of one bucket together, each against its own limit', async () => {
      await store.quota.take(ask({ limits: [limit('m', 100)], cost: 30 }));
      const small = await store.quota.take(ask({ limits: [limit('m', 20)] }));
      expect(small).toMatchObject({ admitted: false, states: [{ remaining: 0, exceeded: true }] });
      expect((await store.quota.take(ask({ limits: [limit('m', 100)], cost: 70 }))).admitted).toBe(true);
      expect((await store.quota.take(ask({ limits: [limit('m', 100, 60_000)], cost: 100 }))).admitted).toBe(
        true,
      );
    });

    it('peeks without taking', async () => {
      await store.quota.take(ask({ cost: 19 }));
      expect(await store.quota.peek(ask())).toMatchObject({ admitted: true, states: [{ remaining: 0 }] });
      expect(await store.quota.peek(ask({ cost: 2 }))).toMatchObject({
        admitted: false,
        states: [{ remaining: 1 }],
      });
      expect((await store.quota.take(ask())).admitted).toBe(true);
      expect((await store.quota.peek(ask({ bucket: 'unused' }))).admitted).toBe(true);
    });

    it('begins a new window when the old one is over', async () => {
      const limits = [limit('s', 2, 1_000)];
      const first = await store.quota.take(ask({ limits, cost: 2 }));
      expect((await store.quota.take(ask({ limits }))).admitted).toBe(false);
      const end = first.states[0]?.resetTime ?? 0;
      if (adapter.ownClock) await waitUntil(async () => (await store.quota.peek(ask({ limits }))).admitted);
      else clock.advance(end - clock.now());
      const next = await store.quota.take(ask({ limits }));
      expect(next).toMatchObject({ admitted: true, states: [{ remaining: 1 }] });
      expect(next.states[0]?.resetTime).toBeGreaterThanOrEqual(end + 1_000);
    });

    it('keeps counts over a restart once the call is recorded', async () => {
      await store.quota.take(ask({ cost: 15 }));
      await store.audit.record(entryWith());
      await store.close();
      store = await adapter.open(url, clock);
      expect((await store.quota.take(ask({ cost: 6 }))).admitted).toBe(false);
      expect((await store.quota.take(ask({ cost: 5 }))).admitted).toBe(true);
    });
  });

  describe(`${adapter.name}: lockout`, () => {
    let url: string;
    let store: Store;
    let clock: TestClock;
    const ip = '203.0.113.9';
    beforeEach(async () => {
      url = adapter.freshUrl();
      clock = new TestClock(Date.now());
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    /** As a call asks: the store, when this process may not rely on what it knows. */
    const lockedForMs = async (address: string, by = store) =>
      by.lockout.lockedForMs(address) ?? by.lockout.readLockedForMs(address);
    const fail = async (times: number, to = store) => {
      for (let i = 0; i < times; i++) expect((await to.lockout.fail(ip)).lockedForMs).toBe(0);
    };

    it('locks with the fifth failure, for a window from it, and is not extended', async () => {
      await fail(4);
      expect(await lockedForMs(ip)).toBe(0);
      await fail(1);
      const locked = await lockedForMs(ip);
      expect(locked).toBeGreaterThan(LOCKOUT.windowSeconds * 1000 - 2_000);
      expect(locked).toBeLessThanOrEqual(LOCKOUT.windowSeconds * 1000);
      clock.advance(10_000);
      const late = await store.lockout.fail(ip);
      expect(late.lockedForMs).toBeGreaterThan(0);
      expect(late.locksForMs).toBeUndefined();
      expect(await lockedForMs(ip)).toBeLessThanOrEqual(locked);
      expect(await lockedForMs('203.0.113.10')).toBe(0);
    });

    it('counts concurrent failures exactly', async () => {
      const answers = await Promise.all(Array.from({ length: 12 }, () => store.lockout.fail(ip)));
      expect(answers.filter(({ lockedForMs }) => lockedForMs === 0)).toHaveLength(5);
      expect(answers.filter(({ locksForMs }) => locksForMs !== undefined)).toHaveLength(1);
    });

    it('lists and clears', async () => {
      await fail(5);
      await store.audit.record(entryWith());
      expect(await store.lockout.count()).toBe(1);
      const locked = await allPages((page) => store.lockout.list(page), 1);
      expect(locked.map(({ clientIp }) => clientIp)).toEqual([ip]);
      expect(locked[0]?.expireTime).toBeGreaterThan(clock.now());
      expect(await store.lockout.clear(ip)).toBe(true);
      expect(await lockedForMs(ip)).toBe(0);
      expect(await store.lockout.clear(ip)).toBe(false);
      await fail(4);
      expect(await lockedForMs(ip)).toBe(0);
    });

    it('survives a restart', async () => {
      await fail(5);
      await store.audit.record(entryWith());
      await store.close();
      store = await adapter.open(url, clock);
      expect(await lockedForMs(ip)).toBeGreaterThan(0);
    });

    several('holds on a second process', async () => {
      const second = await adapter.open(url, clock);
      try {
        await fail(3);
        await fail(2, second);
        // A failing attempt obeys the shared count at once; a good one as soon as the poll has brought it.
        expect((await store.lockout.fail(ip)).lockedForMs).toBeGreaterThan(0);
        await store.lockout.clear(ip);
        await waitUntil(async () => (await lockedForMs(ip, second)) === 0);
      } finally {
        await second.close();
      }
    });
  });
}

/** For what only the database's own clock or a background poll can bring about; ends by the test's time-out. */
async function waitUntil(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 25));
}

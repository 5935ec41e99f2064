// If this fails, several processes on one MongoDB admit more than a limit, or less, or disagree.
import fc from 'fast-check';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import type { Clock } from '../../src/keys/ports/clock.ts';
import type { QuotaRequest } from '../../src/keys/quota.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import type { Store } from '../../src/store/store.ts';
import { LEASE, LOCKOUT } from '../store/contract/harness.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase } from '../support/server.ts';

const mongoUri = inject('mongoUri');
const RUN_MS = process.env.LONG ? 120_000 : 6_000;
const PROCESSES = 4;
const CLIENTS = 64;
const BUCKETS = 40;
const LIMITS_OF_BUCKET = 5;
const SEED = 20260301;

/** One consumption of a limit, as its caller saw it. */
interface Taken {
  readonly request: QuotaRequest;
  readonly admitted: boolean;
  readonly states: readonly {
    name: string;
    windowMs: number;
    remaining: number;
    resetTime: number | undefined;
  }[];
}

/** The clock of a machine that is this much off. */
const offBy = (ms: number): Clock => ({ now: () => Date.now() + ms, monotonic: () => performance.now() });

requires('mongodb').describe('quotas on several processes', () => {
  const database = freshDatabase('mongo', mongoUri);
  let stores: Store[];
  beforeAll(async () => {
    const open = (off: number) =>
      openMongoStore({
        url: database.url,
        clock: offBy(off),
        lockout: LOCKOUT,
        lease: LEASE,
        warn: () => {},
      });
    stores = await Promise.all([0, 30_000, -30_000, 15_000].slice(0, PROCESSES).map(open));
  });
  afterAll(async () => {
    await Promise.all(stores.map((store) => store.close()));
    await database.drop();
  });

  const limits = Array.from({ length: BUCKETS }, (_, bucket) =>
    Array.from({ length: LIMITS_OF_BUCKET }, (_, i) => ({
      name: `l${i}`,
      // From one call to hundreds; windows that roll over many times and once.
      limit: 1 + ((bucket * 7 + i * 61) % 300),
      windowMs: 1_000 * (1 + ((bucket + i) % 5)),
    })),
  );
  const shape = fc.record({
    bucket: fc.nat(BUCKETS - 1),
    cost: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 50 })),
    which: fc.subarray([0, 1, 2, 3, 4], { minLength: 1 }),
  });

  it(`gives ${CLIENTS} clients answers that one limiter could have given, over ${RUN_MS / 1000} s`, async () => {
    const history: Taken[][] = Array.from({ length: BUCKETS }, () => []);
    const end = Date.now() + RUN_MS;
    const client = async (n: number) => {
      const requests = fc.sample(shape, { seed: SEED + n, numRuns: 2_000 });
      for (let i = 0; Date.now() < end; i++) {
        const { bucket, cost, which } = requests[i % requests.length] ?? { bucket: 0, cost: 1, which: [0] };
        const of = which.flatMap((at) => limits[bucket]?.[at] ?? []);
        const request = { bucket: `b${bucket}`, limits: of, cost };
        const { admitted, states } = await (stores[(n + i) % PROCESSES] as Store).quota.take(request);
        history[bucket]?.push({ request, admitted, states });
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, (_, n) => client(n)));
    const wrong = history.flatMap(impossible);
    expect(wrong.slice(0, 5)).toEqual([]);
    const all = history.flat();
    expect(all.filter(({ admitted }) => admitted).length).toBeGreaterThan(500);
    expect(all.filter(({ admitted }) => !admitted).length).toBeGreaterThan(500);
    process.stderr.write(`${all.length} takes, ${all.filter(({ admitted }) => admitted).length} admitted\n`);
  });

  it('the check finds a limit exceeded by one, a lost count and a denial without reason', () => {
    const request = { bucket: 'b', limits: [{ name: 'l', limit: 3, windowMs: 1_000 }], cost: 1 };
    const taken = (admitted: boolean, remaining: number): Taken => ({
      request,
      admitted,
      states: [{ name: 'l', windowMs: 1_000, remaining, resetTime: 5 }],
    });
    const good = [taken(true, 2), taken(true, 1), taken(true, 0), taken(false, 0)];
    expect(impossible(good)).toEqual([]);
    expect(impossible([...good, taken(true, 0)])).toHaveLength(1);
    expect(impossible([taken(true, 2), taken(true, 0)])).toHaveLength(1);
    expect(impossible([taken(true, 2), taken(false, 2)])).toHaveLength(1);
  });
});

/**
 * The first end that a window was given. An update that waited for another on the same bucket carries the time at which
 * it began, so that a window may end some milliseconds earlier from then on; the next one ends a whole window later.
 */
function endsOf(history: readonly Taken[]) {
  const ends = new Map<string, Set<number>>();
  const counterOf = (name: string, windowMs: number) => `${name} ${windowMs}`;
  for (const { name, windowMs, resetTime } of history.flatMap(({ states }) => states)) {
    const of = ends.get(counterOf(name, windowMs)) ?? new Set();
    ends.set(counterOf(name, windowMs), of);
    if (resetTime !== undefined) of.add(resetTime);
  }
  const firsts = new Map<string, number>();
  for (const [counter, of] of ends) {
    const windowMs = Number(counter.split(' ')[1]);
    let first = Number.NEGATIVE_INFINITY;
    for (const end of [...of].sort((a, b) => a - b)) {
      if (end - first > windowMs / 2) first = end;
      firsts.set(`${counter} ${end}`, first);
    }
  }
  return (name: string, windowMs: number, end: number | undefined) =>
    firsts.get(`${counterOf(name, windowMs)} ${end}`);
}

/**
 * What no sequential limiter could have answered about a bucket. Within a window of a counter the admitted takes, put
 * in the order of what was used after them, must each begin where the one before ended; a denial must name a state that
 * was there, and a limit that the cost would have exceeded in it.
 */
function impossible(history: readonly Taken[]): string[] {
  const wrong: string[] = [];
  const windows = new Map<string, { after: number; cost: number }[]>();
  const denied: { window: string; used: number }[] = [];
  const endOf = endsOf(history);
  for (const { request, admitted, states } of history) {
    let reason = false;
    for (const [i, { name, windowMs, remaining, resetTime }] of states.entries()) {
      const limit = request.limits[i]?.limit ?? 0;
      const window = `${request.bucket} ${name} ${windowMs} ${endOf(name, windowMs, resetTime)}`;
      if (admitted) {
        const takes = windows.get(window) ?? [];
        windows.set(window, takes);
        takes.push({ after: limit - remaining, cost: request.cost });
      } else {
        if (request.cost > remaining) reason = true;
        if (resetTime !== undefined) denied.push({ window, used: limit - remaining });
      }
    }
    if (!admitted && !reason) wrong.push(`denied without a reason: ${JSON.stringify(states)}`);
  }
  const usedIn = new Map<string, Set<number>>();
  for (const [window, takes] of windows) {
    const used = new Set([0]);
    usedIn.set(window, used);
    let before = 0;
    for (const { after, cost } of takes.sort((a, b) => a.after - b.after)) {
      if (after - cost !== before) wrong.push(`${window}: ${cost} led from ${before} to ${after}`);
      before = after;
      used.add(after);
    }
  }
  for (const { window, used } of denied) {
    const known = usedIn.get(window);
    if (known !== undefined && !known.has(used)) wrong.push(`${window}: denied at ${used}, which never was`);
  }
  return wrong;
}

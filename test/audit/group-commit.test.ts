// If this fails, calls are answered before their event is durable, hang, or fill the memory.
import { describe, expect, it } from 'vitest';
import { GapReporter } from '../../src/audit/gap-reporter.ts';
import { GroupCommit } from '../../src/audit/group-commit.ts';
import { ApiError } from '../../src/keys/errors.ts';
import { TestClock } from '../support/clock.ts';
import { MemoryAudit } from '../support/doubles.ts';

/** A log whose writes end when the test says so. */
function heldLog(over: { maxQueued?: number; maxBatch?: number; waitLimitMs?: number } = {}) {
  const clock = new TestClock();
  const batches: number[][] = [];
  const ends: { resolve: () => void; reject: (e: Error) => void }[] = [];
  const group = new GroupCommit<number>({
    write: (batch) => {
      batches.push(batch);
      return new Promise((resolve, reject) => ends.push({ resolve, reject }));
    },
    maxQueued: 1000,
    maxBatch: 100,
    waitLimitMs: 5_000,
    clock,
    ...over,
  });
  const settled: number[] = [];
  const add = (n: number) => group.add(n).then(() => settled.push(n));
  const turn = async () => {
    for (let i = 0; i < 5; i++) await new Promise(setImmediate);
  };
  return { group, clock, batches, ends, settled, add, turn };
}

describe('group commit', () => {
  it('answers nobody before the write has ended, and writes in order, one batch at a time', async () => {
    const { batches, ends, settled, add, turn } = heldLog();
    const all = [1, 2, 3].map(add);
    await turn();
    all.push(...[4, 5].map(add));
    await turn();
    expect({ batches, settled }).toEqual({ batches: [[1, 2, 3]], settled: [] });
    ends[0]?.resolve();
    await turn();
    expect({ batches, settled }).toEqual({
      batches: [
        [1, 2, 3],
        [4, 5],
      ],
      settled: [1, 2, 3],
    });
    ends[1]?.resolve();
    await Promise.all(all);
    expect(settled).toEqual([1, 2, 3, 4, 5]);
  });

  it('fails exactly the batch that was not written, and goes on', async () => {
    const { ends, settled, add, turn } = heldLog();
    const first = add(1);
    await turn();
    const second = add(2);
    ends[0]?.reject(new Error('disk full'));
    await expect(first).rejects.toThrow('disk full');
    await turn();
    ends[1]?.resolve();
    await second;
    expect(settled).toEqual([2]);
  });

  it('refuses at once what does not fit, and keeps batches to their size', async () => {
    const { group, batches, ends, add, turn } = heldLog({ maxQueued: 5, maxBatch: 2 });
    const kept = [1, 2, 3, 4, 5].map(add);
    await expect(group.add(6)).rejects.toMatchObject({
      code: 'AUDIT_OVERLOADED',
      facts: { retryAfterMs: 1000 },
    });
    for (let i = 0; i < 3; i++) {
      await turn();
      ends[i]?.resolve();
    }
    await Promise.all(kept);
    expect(batches).toEqual([[1, 2], [3, 4], [5]]);
    expect(group.pending).toBe(0);
    await group.drained();
  });

  it('lets no caller hang on a log that is away; what waits is still written when it is back', async () => {
    const { clock, ends, batches, group, turn } = heldLog({ waitLimitMs: 40 });
    const told: unknown[] = [];
    const calls = [1, 2].map((n) => group.add(n).catch((error: unknown) => told.push(error)));
    await turn();
    clock.advance(41);
    await Promise.all(calls);
    expect(told).toMatchObject([
      { code: 'AUDIT_UNAVAILABLE', facts: { audited: true } },
      { code: 'AUDIT_UNAVAILABLE', facts: { audited: true } },
    ]);
    ends[0]?.resolve();
    await group.drained();
    expect(batches).toEqual([[1, 2]]);
  });
});

describe('gap reporter', () => {
  it('keeps the count until the log takes it, then writes one event', async () => {
    const audit = new MemoryAudit();
    const gaps = new GapReporter((entry) => audit.log.record(entry), new TestClock());
    audit.failure = new ApiError('STORE_UNAVAILABLE', 'away');
    gaps.count(2);
    await gaps.flush();
    gaps.count(1);
    await gaps.flush();
    expect(audit.entries).toEqual([]);
    audit.failure = undefined;
    await gaps.flush();
    await gaps.flush();
    expect(audit.entries).toMatchObject([{ outcome: 'GAP', refusedCalls: 3 }]);
  });

  it('does not count twice what is queued already', async () => {
    const audit = new MemoryAudit();
    const gaps = new GapReporter((entry) => audit.log.record(entry), new TestClock());
    audit.failure = new ApiError('AUDIT_UNAVAILABLE', 'slow', { audited: true });
    gaps.count(2);
    await gaps.flush();
    audit.failure = undefined;
    await gaps.flush();
    expect(audit.entries).toEqual([]);
  });
});

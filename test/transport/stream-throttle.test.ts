// If this fails, a flood of calls costs the throughput, or clients stay held back when it is long over.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LIMITS } from '../../src/rpc/limits.ts';
import { StreamThrottle } from '../../src/transport/stream-throttle.ts';

describe('the throttle of streams', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }));
  afterEach(() => void vi.useRealTimers());

  const connections = (throttle: StreamThrottle, count: number, busy = true) =>
    Array.from({ length: count }, () => {
      const told: number[] = [];
      throttle.add({ busy, limitStreams: (streams) => void told.push(streams) });
      return told;
    });

  it('shares out what may be under way while calls are refused, and gives it back after', () => {
    const throttle = new StreamThrottle();
    const told = connections(throttle, 100);
    throttle.refused();
    vi.advanceTimersByTime(100);
    const share = Math.floor((LIMITS.callsUnderWay * 0.75) / 100);
    expect(told).toEqual(Array(100).fill([share]));
    const [late] = connections(throttle, 1);
    for (let i = 0; i < 100; i++) {
      throttle.refused();
      vi.advanceTimersByTime(100);
    }
    vi.advanceTimersByTime(4_900);
    expect(told[0]?.at(-1)).not.toBe(LIMITS.streamsPerConnection);
    vi.advanceTimersByTime(100);
    for (const each of [...told, late]) expect(each?.at(-1)).toBe(LIMITS.streamsPerConnection);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('does not hold back a client that works because a thousand others are idle', () => {
    const throttle = new StreamThrottle();
    const idle = connections(throttle, 1_000, false);
    const [works] = connections(throttle, 1);
    throttle.refused();
    vi.advanceTimersByTime(100);
    expect(works).toEqual([]);
    for (const told of idle) expect(told).toEqual([]);
  });

  it('leaves every connection one stream, and few connections all of theirs', () => {
    const many = new StreamThrottle();
    const [first] = connections(many, 10_000);
    many.refused();
    vi.advanceTimersByTime(100);
    expect(first).toEqual([1]);
    const few = new StreamThrottle();
    const [only] = connections(few, 10);
    few.refused();
    vi.advanceTimersByTime(100);
    expect(only).toEqual([]);
  });
});

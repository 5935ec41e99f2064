// If this fails, a clock that is set makes a dead key work again, or a window or a lock last for hours.
import { describe, expect, it, onTestFinished } from 'vitest';
import { counterName, take } from '../../src/keys/quota.ts';
import { SeenClock } from '../../src/keys/seen-clock.ts';
import { LockedAddresses } from '../../src/store/locked-addresses.ts';
import { at, decisionOf, makeKey } from '../rpc/cases.ts';
import { TestClock } from '../support/clock.ts';
import { freshDatabase, startServer } from '../support/server.ts';

const HOUR_MS = 3_600_000;

describe('a clock that is set back an hour', () => {
  it('does not move time back: it stands still until the clock has caught up', () => {
    const clock = new TestClock();
    const seen = new SeenClock(clock);
    const start = clock.now();
    clock.advance(5_000);
    expect(seen.now()).toBe(start + 5_000);
    clock.step(-HOUR_MS);
    expect(seen.now()).toBe(start + 5_000);
    clock.advance(HOUR_MS - 1);
    expect(seen.now()).toBe(start + 5_000);
    clock.advance(2);
    expect(seen.now()).toBe(start + 5_001);
  });

  it('after a restart, time continues from the store, except from an implausible time', () => {
    const clock = new TestClock();
    expect(new SeenClock(clock, clock.now() + HOUR_MS).now()).toBe(clock.now() + HOUR_MS);
    expect(new SeenClock(clock, clock.now() - HOUR_MS).now()).toBe(clock.now());
    expect(new SeenClock(clock, clock.now() + 100 * 24 * HOUR_MS).now()).toBe(clock.now());
  });

  it('a jump of 100 days ahead for five seconds expires no key for good', () => {
    const clock = new TestClock();
    const seen = new SeenClock(clock);
    const start = clock.now();
    clock.step(100 * 24 * HOUR_MS);
    expect(seen.now()).toBe(clock.now());
    clock.advance(5_000);
    seen.now();
    clock.step(-100 * 24 * HOUR_MS);
    expect(seen.now()).toBe(start + 5_000);
  });

  it('no quota window lasts longer than its length, also for a key that is denied all the time', () => {
    const limit = { name: 'm', limit: 1, windowMs: 60_000 };
    const request = { bucket: 'b', limits: [limit], cost: 1 };
    const now = 10 * HOUR_MS;
    const first = take(request, {}, now);
    const denied = take(request, first.counters, now - HOUR_MS);
    expect(denied).toMatchObject({ admitted: false, states: [{ retryAfterMs: 60_000 }] });
    expect(denied.counters[counterName(limit)]).toEqual({ used: 1, end: now - HOUR_MS + 60_000 });
    expect(take(request, denied.counters, now - HOUR_MS + 59_999).admitted).toBe(false);
    expect(take(request, denied.counters, now - HOUR_MS + 60_000).admitted).toBe(true);
    // Nothing is copied where the clock goes well.
    expect(take(request, first.counters, now + 1).counters).toBe(first.counters);
  });

  it('no lockout lasts longer than its length', () => {
    const clock = new TestClock();
    const locked = new LockedAddresses(clock);
    locked.lock('192.0.2.1', 900_000);
    clock.step(-HOUR_MS);
    expect(locked.forMs('192.0.2.1')).toBe(900_000);
    clock.advance(900_000);
    expect(locked.forMs('192.0.2.1')).toBe(0);
  });
});

describe('a server that starts anew while its clock is half an hour behind', () => {
  it('does not let a key work again that had expired', async () => {
    const database = freshDatabase('sqlite', '');
    onTestFinished(() => database.drop());
    const clock = new TestClock(Date.now());
    const start = () => startServer(database.url, database.folder, {}, clock);
    const before = await start();
    const expiry = { case: 'expireTime', value: at(clock.now() + 3_600_000) } as const;
    const { secret } = await makeKey(before.clients('grpc'), { expiry });
    expect(await decisionOf(before.clients('grpc'), secret)).toBe('VALID');
    clock.advance(3_600_000);
    expect(await decisionOf(before.clients('grpc'), secret)).toBe('EXPIRED');
    await before.stop();
    clock.step(-1_800_000);
    const after = await start();
    expect(await decisionOf(after.clients('grpc'), secret)).toBe('EXPIRED');
    await after.stop();
  });
});

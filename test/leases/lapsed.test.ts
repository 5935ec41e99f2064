// If this fails, the audit says nothing of a guard that ended while events could not be written.
import { afterEach, expect, it, vi } from 'vitest';
import type { AuditEntry } from '../../src/keys/ports/audit.ts';
import { Guards } from '../../src/leases/guards.ts';
import { SyncKeys, type SyncKeysParts } from '../../src/leases/sync-keys.ts';
import { TestClock } from '../support/clock.ts';

const MINUTE_MS = 60_000;
const GUARD = { callerKeyId: 'caller', guardId: 'guard' };

afterEach(() => void vi.useRealTimers());

it('the event of a lapsed lease is written, once, when events can be written again', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  const clock = new TestClock();
  const guards = new Guards(clock);
  const written: AuditEntry[] = [];
  const warnings: string[] = [];
  let works = false;
  const record = async (entry: AuditEntry) => {
    if (!works) throw new Error('the disk is full');
    written.push(entry);
  };
  const parts: Partial<SyncKeysParts> = {
    guards,
    clock,
    audit: { record },
    epoch: () => 'e',
    warn: (text) => void warnings.push(text),
    lending: { secret: 's' } as SyncKeysParts['lending'],
  };
  const sync = new SyncKeys(parts as SyncKeysParts);
  sync.start();
  try {
    guards.met(GUARD);
    guards.met(GUARD);
    guards.lend(GUARD, 'a', 4, 1_000);
    clock.advance(1_220);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(warnings).toHaveLength(2);
    clock.advance(MINUTE_MS);
    works = true;
    await vi.advanceTimersByTimeAsync(3_000);
  } finally {
    sync.stop();
  }
  expect(written).toMatchObject([
    { outcome: 'OK', requestId: 'guard', count: 1, time: clock.now() - MINUTE_MS },
    { outcome: 'GAP', requestId: 'guard', time: clock.now() - MINUTE_MS },
  ]);
  expect(warnings).toHaveLength(2);
});

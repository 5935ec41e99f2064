import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CHECKPOINT } from '../../../src/audit/checkpoint.ts';
import { Retention } from '../../../src/audit/retention.ts';
import type { AuditEntry } from '../../../src/keys/ports/audit.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { allPages, entryWith, keyWith } from '../../support/keys.ts';
import type { Adapter } from './harness.ts';

export function auditContract(adapter: Adapter): void {
  describe(`${adapter.name}: audit`, () => {
    let url: string;
    let store: Store;
    const clock = new TestClock();
    beforeEach(async () => {
      url = adapter.freshUrl();
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    it('gives back every field of an event', async () => {
      const entry = entryWith({
        time: 1_700_000_000_123,
        outcome: 'DECISION_RATE_LIMITED',
        reason: 'RATE_LIMITED',
        keyId: 'k',
        callerKeyId: 'c',
        keyFingerprint: '01234567',
        requiredScope: 'a:b',
        clientIp: '10.0.0.1',
        clientIpIsPeer: true,
        userAgent: 'curl/8 "x"',
        secretSlot: 'PREVIOUS',
        cost: 12,
        dryRun: true,
        latencyMicros: 1_234_567,
        requestId: 'r',
        refusedCalls: 3,
      });
      await store.audit.record(entry);
      const [event] = (await store.audit.list({}, { size: 10, after: undefined })).items;
      expect(event).toMatchObject(entry);
      expect(event).toMatchObject({ sequence: 1, servedBy: '' });
      expect(event?.id).toMatch(/^[0-9a-f]{16}-\d+$/);
    });

    it('numbers the events of a process without a gap, changes included', async () => {
      const { key } = keyWith();
      await Promise.all([
        ...Array.from({ length: 40 }, () => store.audit.record(entryWith())),
        store.keys.insert(key, entryWith({ keyId: key.id })),
        store.keys.insert(keyWith({ id: key.id }).key, entryWith()),
        ...Array.from({ length: 40 }, () => store.audit.record(entryWith())),
      ]);
      const events = await allPages((page) => store.audit.list({}, page), 30);
      expect(new Set(events.map(({ id }) => id)).size).toBe(81);
      expect(events.map(({ sequence }) => sequence).sort((a, b) => a - b)).toEqual(
        Array.from({ length: 81 }, (_, i) => i + 1),
      );
    });

    it('is durable when record resolves: a second look from a fresh start finds all', async () => {
      await Promise.all(
        Array.from({ length: 250 }, (_, i) => store.audit.record(entryWith({ requestId: `r${i}` }))),
      );
      await store.close();
      store = await adapter.open(url, clock);
      const seen = new Set(
        (await allPages((page) => store.audit.list({}, page), 100)).map(({ requestId }) => requestId),
      );
      expect(seen.size).toBe(250);
    });

    it('lists newest first, each once, over pages and with every filter', async () => {
      const entries: AuditEntry[] = Array.from({ length: 60 }, (_, i) =>
        entryWith({
          time: 10_000 + Math.floor(i / 3),
          keyId: `key${i % 4}`,
          callerKeyId: `caller${i % 2}`,
          method: i % 5 === 0 ? 'm/A' : 'm/B',
          outcome: i % 3 === 0 ? 'OK' : 'DECISION_VALID',
          clientIp: `10.0.0.${i % 6}`,
          secretSlot: i % 10 === 0 ? 'PREVIOUS' : 'CURRENT',
          requestId: String(i),
        }),
      );
      for (const entry of entries) await store.audit.record(entry);
      const found = async (filter: Parameters<Store['audit']['list']>[0]) =>
        (await allPages((page) => store.audit.list(filter, page))).map(({ requestId }) => Number(requestId));
      const expected = (keep: (entry: AuditEntry) => boolean) =>
        entries
          .map((entry, i) => ({ entry, i }))
          .filter(({ entry }) => keep(entry))
          .map(({ i }) => i)
          .reverse();
      expect(await found({})).toEqual(expected(() => true));
      expect(await found({ keyId: 'key1' })).toEqual(expected(({ keyId }) => keyId === 'key1'));
      expect(await found({ callerKeyId: 'caller0', method: 'm/A' })).toEqual(
        expected(({ callerKeyId, method }) => callerKeyId === 'caller0' && method === 'm/A'),
      );
      expect(await found({ outcome: 'OK', secretSlot: 'PREVIOUS' })).toEqual(
        expected(({ outcome, secretSlot }) => outcome === 'OK' && secretSlot === 'PREVIOUS'),
      );
      expect(await found({ clientIp: '10.0.0.3', startTime: 10_005, endTime: 10_015 })).toEqual(
        expected(({ clientIp, time }) => clientIp === '10.0.0.3' && time >= 10_005 && time < 10_015),
      );
      expect(await found({ keyId: 'nobody' })).toEqual([]);
      expect(await store.audit.count()).toBe(60);
      expect(Object.fromEntries(await store.audit.countByOutcome(10_010))).toEqual({
        OK: 10,
        DECISION_VALID: 20,
      });
    });

    it('deletes the oldest in steps, and only what is old', async () => {
      for (let i = 0; i < 30; i++) await store.audit.record(entryWith({ time: 1_000 + i }));
      const retention = new Retention(store.audit, store.chainLog, clock);
      // What is not counted is kept.
      await store.usage.flush();
      expect(await retention.deleteBefore(1_020, 15)).toBe(15);
      const left = (await allPages((page) => store.audit.list({}, page), 100)).filter(
        ({ outcome }) => outcome !== CHECKPOINT,
      );
      expect(left.map(({ time }) => time)).toEqual(Array.from({ length: 15 }, (_, i) => 1_029 - i));
      expect(await retention.deleteBefore(1_020, 15)).toBe(5);
      expect(await retention.deleteBefore(1_020, 15)).toBe(0);
    });

    it('writes what was refused as one gap event', async () => {
      store.audit.countRefused(2);
      store.audit.countRefused(3);
      await store.close();
      store = await adapter.open(url, clock);
      const [gap, more] = (await store.audit.list({}, { size: 10, after: undefined })).items;
      expect(gap).toMatchObject({ outcome: 'GAP', refusedCalls: 5 });
      expect(more).toBeUndefined();
    });
  });
}

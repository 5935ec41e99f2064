// If this fails, alerts of misused old secrets, expiring keys or anomalies are missing, or repeated endlessly.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ManageKeys } from '../../src/keys/manage-keys.ts';
import type { Alert } from '../../src/keys/notices.ts';
import type { Decided } from '../../src/keys/ports/observer.ts';
import { isSecret } from '../../src/keys/secret.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import type { Store } from '../../src/store/store.ts';
import { Watch, type WatchParts } from '../../src/watch/watch.ts';
import { LEASE, LOCKOUT } from '../store/contract/harness.ts';
import { TestClock } from '../support/clock.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { allPages, entryWith, keyWith, ORIGIN } from '../support/keys.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

describe('watch', () => {
  let folder: string;
  let store: Store;
  let clock: TestClock;
  let manage: ManageKeys;
  let watches: Watch[];
  let told: string[];
  let published: Alert[];
  let sinkAway: boolean;
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-watch-'));
    clock = new TestClock();
    told = [];
    published = [];
    sinkAway = false;
    watches = [];
    store = await openSqliteStore({
      url: `sqlite:${folder}/x.db`,
      clock,
      lockout: LOCKOUT,
      lease: LEASE,
      warn: () => {},
    });
    manage = new ManageKeys({
      keys: store.keys,
      clock,
      graceBounds: { minMs: HOUR, maxMs: 7 * DAY },
      observer: { rotated: (key, rotation) => watches[0]?.rotated(key, rotation) },
      mayBeSecret: isSecret,
    });
  });
  afterEach(async () => {
    for (const watch of watches) await watch.stop();
    await store.close();
    rmSync(folder, { recursive: true });
  });

  const watchWith = (over: Partial<WatchParts> = {}) => {
    const say = (level: string, what: string) => void told.push(`${level} ${what}`);
    const watch = new Watch({
      store,
      keys: store.keys,
      sinks: [
        {
          publish: async (alert) => {
            if (sinkAway) throw new Error('away');
            published.push(alert);
          },
        },
      ],
      logger: {
        alert: ({ type }) => say('warn', type),
        rotationBegun: (_key, { mode }) => say('info', `initiated ${mode}`),
        graceEnded: () => say('info', 'grace ended'),
        oldUse: () => say('debug', 'old use'),
        oldRejected: (_id, ip) => say('warn', `old rejected ${ip}`),
        warn: (text) => say('warn', text),
      },
      counted: () => {},
      complete: (key) => manage.completeIfOver(key, ORIGIN),
      disable: undefined,
      clock,
      thresholds: {
        maxRequestsPerMinute: 1_000,
        maxErrorRatio: 0.5,
        minSamples: 20,
        maxIpsPerHour: 1,
        quietHours: undefined,
      },
      autoCleanup: false,
      sweepIntervalMs: 3_600_000,
      retentionDays: 90,
      usageRetentionDays: 400,
      ...over,
    });
    watches.push(watch);
    return watch;
  };
  const alerts = () => allPages((page) => store.alerts.list(0, page));
  const typesOf = async () => (await alerts()).map(({ type }) => type);
  /** Alerts are written shortly after they are raised. */
  const settled = async (count: number) => {
    await vi.waitFor(async () => expect(await alerts()).toHaveLength(count), HANGS_MS);
  };
  const sweep = async (watch: Watch) => {
    watch.start();
    await watch.stop();
  };
  const made = async (fields = {}) => {
    const { key } = keyWith({ createTime: clock.now(), ...fields });
    await store.keys.insert(
      { ...key, secrets: [{ hash: key.secrets[0]?.hash ?? '', createTime: clock.now() }] },
      entryWith(),
    );
    return key.id;
  };
  const rotated = async (graceMs: number, mode: 'MANUAL' | 'FORCED' = 'MANUAL') =>
    (await manage.rotate(await made(), mode, graceMs, ORIGIN)).key;
  const use = (fields: Partial<Decided>): Decided => ({
    decision: 'VALID',
    key: undefined,
    slot: 'PREVIOUS',
    clientIp: '192.0.2.1',
    dryRun: false,
    time: clock.now(),
    ...fields,
  });

  it('raises an alert for uses strictly after 80 % of the grace period, once per rotation', async () => {
    const watch = watchWith();
    const key = await rotated(24 * HOUR);
    clock.advance(69_120_000);
    watch.decided(use({ key }));
    await watch.stop();
    expect(await typesOf()).toEqual([]);
    clock.advance(1);
    for (let i = 0; i < 3; i++) watchWith().decided(use({ key }));
    await settled(1);
    expect((await alerts())[0]).toMatchObject({
      type: 'OLD_KEY_LATE_USE',
      keyId: key.id,
      clientIp: '192.0.2.1',
    });
    expect(told).toContain('info initiated MANUAL');
    expect(told.filter((line) => line === 'debug old use')).toHaveLength(4);
    expect(told.filter((line) => line === 'warn OLD_KEY_LATE_USE')).toHaveLength(1);
  });

  it('counts uses of the old secret in the grace period, but no denials without a secret and no dry runs', async () => {
    const watch = watchWith();
    const key = await rotated(24 * HOUR);
    const id = key.rotation?.id ?? '';
    watch.decided(use({ key }));
    watch.decided(use({ key, decision: 'INSUFFICIENT_SCOPE' }));
    watch.oldCredential(use({ key, clientIp: '192.0.2.9' }));
    watch.decided(use({ key, dryRun: true }));
    watch.decided(use({ key, decision: 'REVOKED' }));
    watch.decided(use({ key, slot: 'CURRENT' }));
    await watch.stop();
    const [record] = (await store.rotations.list({}, { size: 9, after: undefined })).items;
    expect(record).toMatchObject({ id, oldUses: 3, lastOldUseTime: clock.now(), lastOldUseIp: '192.0.2.9' });
  });

  it('raises an alert for denied old secrets once an hour per address, on all processes together', async () => {
    const key = await rotated(HOUR);
    clock.advance(HOUR + 59 * 60_000);
    const refused = (ip: string) => {
      for (const watch of [watchWith(), watchWith()])
        watch.decided(use({ key, decision: 'ROTATED', clientIp: ip, time: clock.now() }));
    };
    refused('192.0.2.1');
    await settled(1);
    refused('192.0.2.2');
    await settled(2);
    // The next hour of the clock, not an hour later.
    clock.advance(30 * 60_000);
    refused('192.0.2.1');
    for (const watch of watches) await watch.stop();
    await settled(2);
    clock.advance(30 * 60_000);
    refused('192.0.2.1');
    await settled(3);
    expect(new Set(await typesOf())).toEqual(new Set(['OLD_KEY_REJECTED']));
    expect(told).toContain('warn old rejected 192.0.2.1');
  });

  it('records the end of a grace period once, and completes a forced rotation', async () => {
    const planned = await rotated(HOUR);
    const forced = await rotated(HOUR, 'FORCED');
    clock.advance(HOUR - 1);
    await sweep(watchWith());
    expect(told.filter((line) => line.includes('grace ended'))).toEqual([]);
    clock.advance(1);
    await sweep(watchWith());
    await sweep(watchWith());
    expect(told.filter((line) => line === 'info grace ended')).toHaveLength(2);
    expect((await store.keys.get(forced.id))?.rotation).toBeUndefined();
    expect((await store.keys.get(planned.id))?.rotation).toBeDefined();
    const { items } = await store.audit.list({ keyId: forced.id }, { size: 9, after: undefined });
    expect(items).toHaveLength(2);
  });

  it('raises an alert for a rotation not completed 604 800 s after its grace period, or completes it if configured', async () => {
    const key = await rotated(HOUR);
    clock.advance(HOUR + 604_800_000 - 1);
    await sweep(watchWith());
    expect(await typesOf()).toEqual([]);
    clock.advance(1);
    await sweep(watchWith());
    await sweep(watchWith());
    expect(await typesOf()).toEqual(['ROTATION_NOT_CLEANED_UP']);
    await sweep(watchWith({ autoCleanup: true }));
    expect((await store.keys.get(key.id))?.rotation).toBeUndefined();
  });

  it('raises one alert per due time of a rotation', async () => {
    const id = await made({ rotateEveryMs: DAY });
    clock.advance(DAY - 1);
    await sweep(watchWith());
    expect(await typesOf()).toEqual([]);
    clock.advance(1);
    for (let i = 0; i < 2; i++) await sweep(watchWith());
    expect(await typesOf()).toEqual(['ROTATION_DUE']);
    await manage.rotate(id, 'MANUAL', HOUR, ORIGIN);
    clock.advance(HOUR);
    await sweep(watchWith());
    expect(await typesOf()).toEqual(['ROTATION_DUE']);
    clock.advance(DAY);
    await sweep(watchWith());
    expect(await typesOf()).toEqual(['ROTATION_DUE', 'ROTATION_DUE']);
  });

  it('raises alerts for keys that expire, 7 days and 1 day ahead', async () => {
    await made({ expireTime: clock.now() + 30 * DAY });
    await made({ expireTime: clock.now() + HOUR });
    await made({ expireTime: clock.now() + 30 * DAY, revokeTime: clock.now() });
    clock.advance(23 * DAY - 1);
    await sweep(watchWith());
    expect(await typesOf()).toEqual([]);
    clock.advance(1);
    for (let i = 0; i < 2; i++) await sweep(watchWith());
    clock.advance(6 * DAY - 1);
    await sweep(watchWith());
    expect((await alerts()).map(({ detail }) => detail.days)).toEqual(['7']);
    clock.advance(1);
    await sweep(watchWith());
    expect((await alerts()).map(({ type, detail }) => [type, detail.days])).toEqual([
      ['KEY_EXPIRING', '7'],
      ['KEY_EXPIRING', '1'],
    ]);
  });

  it('opens an anomaly with one alert, counts further occurrences in it, and changes no decision', async () => {
    const watch = watchWith();
    const { key } = keyWith({ id: await made() });
    const from = (ip: string, fields: Partial<Decided> = {}) =>
      watch.decided(use({ key, slot: 'CURRENT', clientIp: ip, ...fields }));
    from('192.0.2.1');
    from('192.0.2.2', { decision: 'REVOKED' });
    from('192.0.2.2', { dryRun: true });
    await watch.stop();
    expect(await typesOf()).toEqual([]);
    from('192.0.2.2');
    await watch.stop();
    from('192.0.2.3');
    await watch.stop();
    await settled(1);
    const { items } = await store.anomalies.list({}, { size: 9, after: undefined });
    expect(items).toMatchObject([{ type: 'MULTIPLE_IPS', state: 'OPEN', count: 2 }]);
    expect((await alerts())[0]).toMatchObject({
      type: 'ANOMALY',
      keyId: key.id,
      detail: { anomaly: 'MULTIPLE_IPS' },
    });
    expect((await store.keys.get(key.id))?.disabled).toBe(false);
  });

  it('disables the key if configured, and says so in the alert', async () => {
    const watch = watchWith({ disable: (id) => manage.disable(id, ORIGIN) });
    const { key } = keyWith({ id: await made() });
    for (const ip of ['192.0.2.1', '192.0.2.2']) watch.decided(use({ key, slot: 'CURRENT', clientIp: ip }));
    await watch.stop();
    await settled(1);
    expect((await store.keys.get(key.id))?.disabled).toBe(true);
    expect((await alerts())[0]).toMatchObject({ detail: { action: 'disabled' } });
  });

  it('delivers alerts that a killed process or an unavailable sink has left', async () => {
    // The state after a process is killed between writing the record and delivering it.
    const left: Alert = {
      id: 'LOCKOUT:x',
      type: 'LOCKOUT',
      time: clock.now(),
      keyId: '',
      clientIp: '192.0.2.1',
      text: 't',
      detail: {},
    };
    await store.alerts.insert(left);
    sinkAway = true;
    watchWith().lockedOut('192.0.2.7', 900_000);
    await settled(2);
    clock.advance(10_001);
    await sweep(watchWith());
    expect(published).toEqual([]);
    sinkAway = false;
    await sweep(watchWith());
    expect(published.map(({ clientIp }) => clientIp).sort()).toEqual(['192.0.2.1', '192.0.2.7']);
    await sweep(watchWith());
    expect(published).toHaveLength(2);
  });

  it('raises the alert of an anomaly that a killed process opened without one', async () => {
    const id = await made();
    const trip = {
      keyId: id,
      type: 'MULTIPLE_IPS' as const,
      count: 1,
      firstTime: clock.now(),
      lastTime: clock.now(),
    };
    await store.anomalies.trip(trip);
    await sweep(watchWith());
    expect(await typesOf()).toEqual([]);
    clock.advance(10_000);
    await sweep(watchWith());
    await settled(1);
  });
});

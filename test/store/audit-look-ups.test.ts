// If this fails, admins who ask for a key's events on the embedded store get too few, twice, or wait for a scan.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, it } from 'vitest';
import type { AuditFilter } from '../../src/keys/ports/audit.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import type { Store } from '../../src/store/store.ts';
import { TestClock } from '../support/clock.ts';
import { allPages, entryWith } from '../support/keys.ts';
import { LEASE, LOCKOUT } from './contract/harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-look-ups-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** More than two chunks. */
const EVENTS = 40_000;
/** More than are sorted at once. */
const KEYS = 700;
const ADDRESSES = 13;

describe('the look-up tables of the audit log', () => {
  const file = join(folder, 'apikeyd.db');
  const clock = new TestClock(Date.now());
  const open = () =>
    openSqliteStore({
      url: `sqlite:${file}`,
      clock,
      lockout: LOCKOUT,
      lease: LEASE,
      chainKey: undefined,
      warn: () => {},
    });
  const write = async (store: Store, from: number, to: number) => {
    for (let at = from; at < to; at += 1_000) {
      const batch = Array.from({ length: Math.min(1_000, to - at) }, (_, i) => at + i);
      await Promise.all(
        batch.map((n) =>
          store.audit.record(
            entryWith({
              keyId: `key-${n % KEYS}`,
              clientIp: `192.0.2.${n % ADDRESSES}`,
              requestId: String(n),
              time: n,
            }),
          ),
        ),
      );
    }
  };
  const found = async (store: Store, filter: AuditFilter) => {
    const events = await allPages((page) => store.audit.list(filter, page), 100);
    return events.map(({ requestId }) => Number(requestId));
  };
  const expected = (holds: (n: number) => boolean, to = EVENTS) =>
    Array.from({ length: to }, (_, i) => to - 1 - i).filter(holds);
  const rows = (table: string) => {
    const db = new DatabaseSync(file, { readOnly: true });
    const row = db.prepare(`SELECT count(*) AS n FROM ${table}`).get();
    db.close();
    return Number(row?.n);
  };

  it('answer like a scan: in the tables, beyond them, over both, and after a restart in the middle', async () => {
    const first = await open();
    await write(first, 0, 20_000);
    expect(await found(first, { keyId: 'key-5' })).toEqual(expected((n) => n % KEYS === 5, 20_000));
    await first.close();
    const store = await open();
    await write(store, 20_000, EVENTS);
    expect(rows('api_key_audit_by_key')).toBeGreaterThan(16_384);
    expect(rows('api_key_audit_by_ip')).toBeGreaterThan(16_384);
    expect(rows('api_key_audit_by_key')).toBeLessThan(EVENTS);
    const said = "row <= (SELECT value FROM api_key_meta WHERE id = 'audit_looked_up')";
    for (const table of ['api_key_audit_by_key', 'api_key_audit_by_ip'])
      expect(
        rows(`api_key_audit_log WHERE ${said} AND key_id <> '' AND row NOT IN (SELECT row FROM ${table})`),
      ).toBe(0);
    expect(await found(store, { keyId: 'key-5' })).toEqual(expected((n) => n % KEYS === 5));
    expect(await found(store, { clientIp: '192.0.2.7' })).toEqual(expected((n) => n % ADDRESSES === 7));
    expect(await found(store, { keyId: 'key-5', clientIp: '192.0.2.7' })).toEqual(
      expected((n) => n % KEYS === 5 && n % ADDRESSES === 7),
    );
    expect(await found(store, { keyId: 'key-5', startTime: 10_000, endTime: 12_000 })).toEqual(
      expected((n) => n % KEYS === 5 && n >= 10_000 && n < 12_000),
    );
    expect(await found(store, { keyId: 'key-none' })).toEqual([]);
    await store.close();
  });

  it('lose their rows when retention takes the events', async () => {
    const store = await open();
    for (const prefix of await store.chainLog.expiredPrefixes(5_000, 10_000))
      await store.chainLog.cut(prefix, clock.now());
    for (const table of ['api_key_audit_by_key', 'api_key_audit_by_ip'])
      expect(rows(`${table} WHERE row NOT IN (SELECT row FROM api_key_audit_log)`)).toBe(0);
    expect(await found(store, { keyId: 'key-5' })).toEqual(expected((n) => n % KEYS === 5 && n >= 5_000));
    await store.close();
  });
});

// If this fails, somebody who can write to the embedded store hides events from ListAuditEvents, and nobody is told.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AuditVerifier } from '../../src/audit/verify.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import type { Store } from '../../src/store/store.ts';
import { TestClock } from '../support/clock.ts';
import { allPages, entryWith } from '../support/keys.ts';
import { LEASE, LOCKOUT } from './contract/harness.ts';
import { LIST_TAMPERINGS } from './tampering/sqlite-ledger.ts';

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-lists-'));
const file = join(folder, 'apikeyd.db');
const clock = new TestClock();
afterAll(() => rmSync(folder, { recursive: true }));

async function use<T>(what: (store: Store) => Promise<T>): Promise<T> {
  const url = `sqlite:${file}`;
  const store = await openSqliteStore({ url, clock, lockout: LOCKOUT, lease: LEASE, warn: () => {} });
  try {
    return await what(store);
  } finally {
    await store.close();
  }
}

const found = (store: Store) => allPages((page) => store.audit.list({ keyId: 'key-1' }, page));
const verified = ({ chainLog: log, chain }: Store) => new AuditVerifier({ log, chain, clock }).verify();

describe('the tables that lists of events go by', () => {
  beforeAll(() =>
    use(async (store) => {
      for (let i = 0; i < 30; i++)
        await store.audit.record(
          entryWith({ time: 1_000 + i, keyId: `key-${i % 3}`, clientIp: `192.0.2.${i % 2}` }),
        );
      expect(await store.chainLog.rebuildLists()).toBe(30);
    }),
  );

  it('are whole after they were built anew', async () => {
    const db = new DatabaseSync(file, { readOnly: true });
    expect(db.prepare('SELECT count(*) AS n FROM api_key_audit_by_key').get()?.n).toBe(30);
    expect(db.prepare('SELECT count(*) AS n FROM api_key_audit_by_ip').get()?.n).toBe(30);
    db.close();
    expect(await use(async (store) => [(await found(store)).length, (await verified(store)).defect])).toEqual(
      [10, undefined],
    );
  });

  it.each(LIST_TAMPERINGS)('show that $name, and are right when they were built anew', async ({ sql }) => {
    const db = new DatabaseSync(file);
    db.exec(sql);
    db.close();
    await use(async (store) => {
      expect((await verified(store)).defect).toMatchObject({ kind: 'UNLISTED' });
      await store.chainLog.rebuildLists();
      expect((await found(store)).length).toBe(10);
      expect((await verified(store)).defect).toBeUndefined();
    });
  });
});

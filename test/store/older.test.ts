// If this fails, the audit of a store that an earlier release wrote cannot be verified any more, or is taken for new.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { BSON, MongoClient } from 'mongodb';
import { afterAll, expect, inject, it } from 'vitest';
import { AuditVerifier } from '../../src/audit/verify.ts';
import { openStore } from '../../src/store/open-store.ts';
import { MIGRATIONS } from '../../src/store/sqlite/migrations.ts';
import type { Store } from '../../src/store/store.ts';
import { TestClock } from '../support/clock.ts';
import { entryWith } from '../support/keys.ts';
import { requires } from '../support/requires.ts';
import { LEASE, LOCKOUT } from './contract/harness.ts';
import { OLDER_KEY } from './older/key.ts';

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-older-'));
afterAll(() => rmSync(folder, { recursive: true }));
const clock = new TestClock();

async function use<T>(url: string, what: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore({
    url,
    clock,
    lockout: LOCKOUT,
    lease: LEASE,
    chainKey: OLDER_KEY,
    warn: () => {},
  });
  try {
    return await what(store);
  } finally {
    await store.close();
  }
}

const verified = ({ chainLog: log, chain }: Store) => new AuditVerifier({ log, chain, clock }).verify();

/** Three chains of the earlier release, the first of them cut, and one of this. */
async function expectOlderChains(url: string): Promise<void> {
  const before = await use(url, verified);
  expect(before.defect).toBeUndefined();
  expect(before.checkedEvents).toBeGreaterThan(15);
  expect(before.heads.map(({ older }) => older)).toEqual([true, true, true]);
  await use(url, (store) => store.audit.record(entryWith()));
  const after = await use(url, verified);
  expect(after.defect).toBeUndefined();
  expect(after.heads.map(({ older }) => older === true).sort()).toEqual([false, true, true, true]);
}

/** A file as the earlier release left it. */
function olderFile(): string {
  const path = join(folder, `${randomBytes(6).toString('hex')}.db`);
  const db = new DatabaseSync(path, { enableForeignKeyConstraints: false });
  db.exec(readFileSync('test/store/older/sqlite.sql', 'utf8'));
  db.close();
  return path;
}

it('a file of the first release is verified, its chains marked as older', () =>
  expectOlderChains(`sqlite:${olderFile()}`));

it('a file that was already of this release and is set back to the earlier one gets no new signatures', async () => {
  const path = olderFile();
  await use(`sqlite:${path}`, (store) => store.audit.record(entryWith()));
  await use(`sqlite:${path}`, (store) => store.audit.record(entryWith()));
  const db = new DatabaseSync(path);
  const signing = MIGRATIONS.findIndex((sql) => sql.includes('note_mac'));
  for (const column of ['mac', 'older', 'listed'])
    db.exec(`ALTER TABLE api_key_chain_heads DROP COLUMN ${column}`);
  // What later migrations made is taken back, too.
  for (const column of ['local_validation', 'ever_local'])
    db.exec(`ALTER TABLE api_keys DROP COLUMN ${column}`);
  db.exec("DROP TABLE api_key_local_uses; DELETE FROM api_key_meta WHERE id IN ('epoch', 'guard_secret')");
  db.exec(`PRAGMA user_version = ${signing}`);
  db.close();
  expect((await use(`sqlite:${path}`, verified)).defect).toMatchObject({ kind: 'NOTE' });
});

requires('mongodb').describe('on MongoDB', () => {
  it('a database of the first release is verified, its chains marked as older', async () => {
    const url = new URL(inject('mongoUri'));
    url.pathname = `/apikeyd_test_${randomBytes(6).toString('hex')}`;
    const client = await new MongoClient(url.toString()).connect();
    const dump = BSON.EJSON.parse(readFileSync('test/store/older/mongo.json', 'utf8')) as Record<string, []>;
    try {
      for (const [name, docs] of Object.entries(dump)) await client.db().collection(name).insertMany(docs);
      await expectOlderChains(url.toString());
    } finally {
      await client.db().dropDatabase();
      await client.close();
    }
  });
});

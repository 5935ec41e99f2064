// If this fails, the embedded store loses keys, events or counts, or lets a second process corrupt them.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { parseEvent } from '../../src/audit/fields.ts';
import { HOUR_MS, isUse } from '../../src/audit/usage-counter.ts';
import { hashSecret } from '../../src/keys/secret.ts';
import { MIGRATIONS } from '../../src/store/sqlite/migrations.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import { TestClock } from '../support/clock.ts';
import { entryWith, keyWith } from '../support/keys.ts';
import { auditContract } from './contract/audit.ts';
import { chainContract } from './contract/chain.ts';
import { type Adapter, LEASE, LOCKOUT } from './contract/harness.ts';
import { keyStoreContract } from './contract/keys.ts';
import { limitsContract } from './contract/limits.ts';
import { noticesContract } from './contract/notices.ts';
import { proofContract } from './contract/proof.ts';
import { remoteKeysContract } from './contract/remote-keys.ts';
import { tamperingContract } from './contract/tampering.ts';
import { usageContract } from './contract/usage.ts';
import { sqliteLedger } from './tampering/sqlite-ledger.ts';

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-sqlite-'));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
const adapter: Adapter = {
  name: 'sqlite',
  freshUrl: () => `sqlite:${join(folder, `${files++}`, 'apikeyd.db')}`,
  open: (url, clock, chainKey) =>
    openSqliteStore({ url, clock, lockout: LOCKOUT, lease: LEASE, chainKey, warn: () => {} }),
  tamper: async (url, how, { processId, sequence }) => {
    const db = new DatabaseSync(url.replace('sqlite:', ''));
    const where = `WHERE process_id = '${processId}' AND sequence`;
    const columns = 'time, event';
    const swap = `UPDATE api_key_audit_log SET (${columns}) = (SELECT ${columns} FROM swapped WHERE swapped.row <> api_key_audit_log.row) ${where} IN (${sequence}, ${sequence + 1})`;
    const copied = 'process_id, sequence, hash, time, event';
    db.exec(
      {
        changed: `UPDATE api_key_audit_log SET event = json_set(event, '$[1]', 'DECISION_REVOKED') ${where} = ${sequence}`,
        removed: `DELETE FROM api_key_audit_log ${where} = ${sequence}`,
        swapped: `CREATE TEMP TABLE swapped AS SELECT * FROM api_key_audit_log ${where} IN (${sequence}, ${sequence + 1}); ${swap}`,
        inserted: `INSERT INTO api_key_audit_log (${copied}) SELECT ${copied} FROM api_key_audit_log ${where} = ${sequence}`,
        truncated: `DELETE FROM api_key_audit_log ${where} >= ${sequence}`,
        headless: `DELETE FROM api_key_chain_heads WHERE process_id = '${processId}'`,
      }[how],
    );
    db.close();
  },
  forgetUsage: async (url, what) => {
    const db = new DatabaseSync(url.replace('sqlite:', ''));
    if (what === 'ALL') {
      db.exec("DELETE FROM api_key_usage; UPDATE api_key_meta SET value = 0 WHERE id LIKE 'usage%'");
    } else {
      const [last, before] = db
        .prepare('SELECT DISTINCT reaches FROM api_key_usage ORDER BY reaches DESC LIMIT 2')
        .all()
        .map(({ reaches }) => Number(reaches)) as [number, number];
      db.prepare("UPDATE api_key_meta SET value = ? WHERE id = 'usage_counted'").run(before);
      const events = db.prepare('SELECT time, event FROM api_key_audit_log WHERE row <= ?').all(before);
      for (const row of db.prepare('SELECT * FROM api_key_usage WHERE reaches = ?').all(last).slice(1)) {
        const then = events.filter(({ time, event }) => {
          const entry = parseEvent(Number(time), String(event));
          const hour = Math.floor(entry.time / HOUR_MS) * HOUR_MS;
          const mine = row.key_id === '' || row.key_id === entry.keyId;
          return isUse(entry) && mine && hour === row.hour && entry.outcome === row.outcome;
        }).length;
        const where = 'WHERE key_id = ? AND hour = ? AND outcome = ?';
        const of = [row.key_id, row.hour, row.outcome] as [string, number, string];
        if (then === 0) db.prepare(`DELETE FROM api_key_usage ${where}`).run(...of);
        else db.prepare(`UPDATE api_key_usage SET count = ?, reaches = ? ${where}`).run(then, before, ...of);
      }
    }
    db.close();
  },
  severalProcesses: false,
  ownClock: false,
};

keyStoreContract(adapter);
auditContract(adapter);
limitsContract(adapter);
noticesContract(adapter);
remoteKeysContract(adapter);
chainContract(adapter);
usageContract(adapter);
tamperingContract(adapter, sqliteLedger, 'sqlite');
proofContract(adapter, sqliteLedger);

describe('sqlite: one process', () => {
  it('refuses a second one on its file, and lets the next have it', async () => {
    const url = adapter.freshUrl();
    const first = await adapter.open(url, new TestClock());
    await expect(adapter.open(url, new TestClock())).rejects.toMatchObject({
      exitCode: 69,
      message: expect.stringMatching(/^STORE_URL: another process is using/),
    });
    await first.close();
    await (await adapter.open(url, new TestClock())).close();
  });

  it('brings a file of the first schema up to date, and loses nothing', async () => {
    const url = adapter.freshUrl();
    const path = url.replace('sqlite:', '');
    mkdirSync(dirname(path));
    const old = new DatabaseSync(path);
    old.exec(`${MIGRATIONS[0]}; PRAGMA user_version = 1`);
    old.exec("INSERT INTO api_key_meta VALUES ('kept', 7)");
    const { key, secret } = keyWith({ expireTime: 5_000_000_000_000 });
    old
      .prepare(
        `INSERT INTO api_keys (id, name, owner_id, key_type, secrets, hint, scopes, rate_limits, rate_limit_bucket,
          ip_allowlist, metadata, disabled, create_time, expire_time, expired, revoke_note, last_use_time, etag, revision)
         VALUES (?, 'test', 'owner', 'SERVICE', ?, ?, '["traces:read"]', '[]', ?, '[]', '{}', 0, 1000, ?, 0, '', 1234, ?, 1)`,
      )
      .run(key.id, JSON.stringify(key.secrets), key.hint, key.id, 5_000_000_000_000, key.etag);
    old.prepare('INSERT INTO api_key_secrets VALUES (?, ?)').run(hashSecret(secret), key.id);
    old.exec(
      `INSERT INTO api_key_limits VALUES ('quota:${key.id}', '{"60000_bQ":{"used":3,"end":9000000000000}}', 9),
        ('lockout:192.0.2.7', '{"points":5}', 5000000000000), ('lockout:192.0.2.8', '{"points":4}', 5000000000000)`,
    );
    old.close();
    const store = await adapter.open(url, new TestClock());
    expect(await store.giteaTokens.list({ user: 'alice', userId: undefined })).toEqual([]);
    expect((await store.keys.findByHash(hashSecret(secret))).key).toEqual({ ...key, revision: 1 });
    expect(await store.keys.get(key.id)).toEqual({ ...key, revision: 1, lastUseTime: 1_234 });
    const taken = await store.quota.peek({
      bucket: key.id,
      limits: [{ name: 'm', limit: 4, windowMs: 60_000 }],
      cost: 2,
    });
    expect(taken.admitted).toBe(false);
    const locked = await store.lockout.list({ size: 9, after: undefined });
    expect(locked.items).toEqual([{ clientIp: '192.0.2.7', expireTime: 5_000_000_000_000 }]);
    expect(store.lockout.lockedForMs('192.0.2.7')).toBeGreaterThan(0);
    // The fifth failure, four of which the old file remembers.
    expect((await store.lockout.fail('192.0.2.8')).locksForMs).toBe(LOCKOUT.windowSeconds * 1000);
    await store.close();
    const now = new DatabaseSync(path);
    expect(now.prepare('PRAGMA user_version').get()).toEqual({ user_version: MIGRATIONS.length });
    expect(now.prepare("SELECT value FROM api_key_meta WHERE id = 'kept'").get()).toEqual({ value: 7 });
    now.close();
  });

  it('keeps what was noted of keys of other systems before a verification could say UNUSABLE', async () => {
    const url = adapter.freshUrl();
    const path = url.replace('sqlite:', '');
    mkdirSync(dirname(path));
    const old = new DatabaseSync(path);
    const count = MIGRATIONS.findIndex((step) => step.includes('CREATE TABLE gitea_tokens')) + 1;
    old.exec(`${MIGRATIONS.slice(0, count).join(';')}; PRAGMA user_version = ${count}`);
    for (const [id, alive] of [
      ['1', 1],
      ['2', 0],
      ['3', null],
    ] as const)
      old
        .prepare(
          "INSERT INTO gitea_tokens VALUES (?, 'alice', 'ci', '[\"all\"]', '89abcdef', 'h', 1, NULL, NULL, 2, ?)",
        )
        .run(id, alive);
    old.close();
    const store = await adapter.open(url, new TestClock());
    const records = await store.giteaTokens.find(['1', '2', '3']);
    expect(records.map(({ id, lastVerifyResult }) => [id, lastVerifyResult]).sort()).toEqual([
      ['1', 'ALIVE'],
      ['2', 'DEAD'],
      ['3', undefined],
    ]);
    await store.close();
  });

  it('a lock from before the clock went back an hour lasts no longer than a lock from now', async () => {
    const url = adapter.freshUrl();
    const windowMs = LOCKOUT.windowSeconds * 1000;
    const ip = '192.0.2.9';
    const store = await adapter.open(url, new TestClock(Date.now()));
    // The library asks Date itself.
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + HOUR_MS });
    for (let i = 0; i < 5; i++) await store.lockout.fail(ip);
    vi.useRealTimers();
    expect((await store.lockout.fail(ip)).lockedForMs).toBe(windowMs);
    const { items } = await store.lockout.list({ size: 9, after: undefined });
    expect(items.map(({ clientIp }) => clientIp)).toEqual([ip]);
    expect(items[0]?.expireTime).toBeLessThanOrEqual(Date.now() + windowMs);
    await store.close();
  });

  it('tells keys apart whose hashes begin alike', async () => {
    const store = await adapter.open(adapter.freshUrl(), new TestClock());
    const alike = ['0', '1', '2'].map((end) => ({ hash: `${'ab'.repeat(31)}0${end}`, createTime: 1 }));
    const keys = alike.map((secret) => keyWith({ secrets: [secret] }).key);
    for (const key of keys) expect((await store.keys.insert(key, entryWith())).outcome).toBe('INSERTED');
    for (const [i, { hash }] of alike.entries())
      expect((await store.keys.findByHash(hash)).key?.id).toBe(keys[i]?.id);
    expect((await store.keys.findByHash(`${'ab'.repeat(31)}03`)).key).toBeUndefined();
    await store.close();
  });

  it('says which file it cannot open', async () => {
    await expect(adapter.open('sqlite:/dev/null/x.db', new TestClock())).rejects.toMatchObject({
      exitCode: 69,
      message: expect.stringMatching(/^STORE_URL: cannot open \/dev\/null\/x.db/),
    });
  });
});

/**
 * Writes what a store of an earlier release holds: `node test/store/older/make.ts CHECKOUT`, in a checkout of that
 * release with its packages; with MONGODB_URI also of MongoDB. The files were made by commit 552b9b7.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { BSON, MongoClient } from 'mongodb';
import { TestClock } from '../../support/clock.ts';
import { entryWith, keyWith } from '../../support/keys.ts';
import { OLDER_KEY } from './key.ts';

const checkout = process.argv[2] ?? '';
const folder = mkdtempSync(join(tmpdir(), 'apikeyd-older-'));
const path = join(folder, 'apikeyd.db');
const clock = new TestClock();
const { openStore } = await import(`${checkout}/src/store/open-store.ts`);
const { Retention } = await import(`${checkout}/src/audit/retention.ts`);

async function fill(url: string) {
  for (let process = 0; process < 3; process++) {
    const store = await openStore({
      url,
      clock,
      lockout: { maxAttempts: 5, windowSeconds: 900 },
      lease: { pollMs: 50, leaseMs: 1_000, caches: true },
      chainKey: OLDER_KEY,
      warn: () => {},
    });
    await store.keys.insert(keyWith().key, entryWith({ time: 1_000 }));
    for (let i = 0; i < 6; i++)
      await store.audit.record(entryWith({ time: 1_000 * (process + 1) + i, requestId: `r${i}` }));
    if (process === 1) await new Retention(store.audit, clock).deleteBefore(1_003, 3);
    await store.close();
  }
}

await fill(`sqlite:${path}`);
const db = new DatabaseSync(path);
const quoted = (value: unknown) =>
  typeof value === 'string' ? `'${value.replaceAll("'", "''")}'` : String(value ?? 'NULL');
const lines = db
  .prepare('SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY rowid')
  .all()
  .map(({ sql }) => `${sql};`);
for (const { name } of db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all()) {
  for (const row of db.prepare(`SELECT * FROM ${name}`).all()) {
    const stored = db.prepare(`SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0`).all(String(name));
    const columns = stored.map((column) => String(column.name));
    const values = columns.map((column) => quoted(row[column]));
    lines.push(`INSERT INTO ${name} (${columns.join(', ')}) VALUES (${values.join(', ')});`);
  }
}
lines.push(`PRAGMA user_version = ${db.prepare('PRAGMA user_version').get()?.user_version};`);
db.close();
rmSync(folder, { recursive: true });
writeFileSync(new URL('sqlite.sql', import.meta.url), `${lines.join('\n')}\n`);

const uri = process.env.MONGODB_URI;
if (uri !== undefined) {
  const url = new URL(uri);
  url.pathname = '/apikeyd_test_older';
  const client = await new MongoClient(url.toString()).connect();
  await client.db().dropDatabase();
  await fill(url.toString());
  const dump: Record<string, unknown[]> = {};
  for (const name of ['api_key_audit_log', 'api_key_meta', 'api_keys'])
    dump[name] = await client.db().collection(name).find().toArray();
  await client.db().dropDatabase();
  await client.close();
  writeFileSync(
    new URL('mongo.json', import.meta.url),
    `${BSON.EJSON.stringify(dump, { relaxed: false }, 1)}\n`,
  );
}

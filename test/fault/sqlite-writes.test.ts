// If this fails, a disk error makes calls VALID that left no event, or forgets counts.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Committer } from '../../src/store/sqlite/committer.ts';
import { SqliteDatabase } from '../../src/store/sqlite/database.ts';
import { DeferredRows } from '../../src/store/sqlite/deferred-rows.ts';
import { unavailable } from '../../src/store/sqlite/errors.ts';
import { SqliteKeyStore } from '../../src/store/sqlite/key-store.ts';
import { SqliteQuota } from '../../src/store/sqlite/quota.ts';
import { TestClock } from '../support/clock.ts';
import { entryWith, keyWith } from '../support/keys.ts';

const request = { bucket: 'b', limits: [{ name: 'm', limit: 10, windowMs: 60_000 }], cost: 1 };

describe.each([1, 2, 3])('the write number %i fails', (nth) => {
  let folder: string;
  let database: SqliteDatabase;
  let committer: Committer;
  let quota: SqliteQuota;
  let keys: SqliteKeyStore;
  const clock = new TestClock();
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-fault-'));
    database = SqliteDatabase.open(join(folder, 'x.db'), 'p');
    let writes = 0;
    const failing = new Proxy(database, {
      get(target, name) {
        if (name === 'commit') {
          return async (batch: Parameters<SqliteDatabase['commit']>[0]) => {
            writes++;
            // As the thread does it: nothing of the batch was written.
            if (writes === nth) throw unavailable(new Error('disk I/O error'));
            return target.commit(batch);
          };
        }
        const member = Reflect.get(target, name) as unknown;
        return typeof member === 'function' ? member.bind(target) : member;
      },
    });
    const deferred = new DeferredRows(failing);
    committer = new Committer(failing, deferred, clock, async () => ({ entries: [], notes: [] }));
    quota = new SqliteQuota(deferred.quotas, clock);
    keys = new SqliteKeyStore(failing, committer, deferred.lastUses);
  });
  afterEach(async () => {
    await database.close();
    rmSync(folder, { recursive: true });
  });
  const count = async (table: string) =>
    Number((await database.query(`SELECT count(*) AS n FROM ${table}`, []))[0]?.n);

  it('only its own calls fail, they have no events, and the quota they consumed stays consumed', async () => {
    const outcomes: string[] = [];
    for (let i = 0; i < 4; i++) {
      await quota.take(request);
      await committer.record(entryWith()).then(
        () => outcomes.push('recorded'),
        (error) => outcomes.push(error.code),
      );
    }
    const expected = Array.from({ length: 4 }, (_, i) => (i + 1 === nth ? 'STORE_UNAVAILABLE' : 'recorded'));
    expect(outcomes).toEqual(expected);
    expect(await count('api_key_audit_log')).toBe(3);
    // The counts of the failed write ride with the next one.
    const entries: string[] = [];
    database.journal((each) => entries.push(each));
    const [, , counters] = JSON.parse(entries.at(-1) ?? '[]');
    expect(Object.values(counters)[0]).toMatchObject({ used: 4 });
  });

  it('a change and its event are both written, or neither', async () => {
    for (let i = 0; i < 4; i++) {
      const { key } = keyWith();
      await keys.insert(key, entryWith({ keyId: key.id })).catch(() => {});
    }
    expect(await count('api_keys')).toBe(3);
    expect(await count('api_key_audit_log')).toBe(3);
    expect(await count('api_key_secrets')).toBe(3);
    expect(await keys.revision()).toBe(3);
  });
});

describe('one impossible write', () => {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-fault-'));
  const database = SqliteDatabase.open(join(folder, 'x.db'), 'p');
  const committer = new Committer(database, new DeferredRows(database), new TestClock(), async () => ({
    entries: [],
    notes: [],
  }));
  afterAll(async () => {
    await database.close();
    rmSync(folder, { recursive: true });
  });

  it('fails alone: other calls in the same batch are answered', async () => {
    const bad = [{ sql: 'INSERT INTO api_key_meta VALUES (NULL, 1)', params: [] }];
    const good = (id: string) => [{ sql: 'INSERT INTO api_key_meta VALUES (?, 1)', params: [id] }];
    const outcomes = await Promise.allSettled([
      committer.record(entryWith()),
      committer.write(good('a'), entryWith()),
      committer.write([...good('lost'), ...bad], entryWith({ reason: 'lost' })),
      committer.write([{ sql: 'no SQL', params: [] }]),
      committer.write(good('b'), entryWith()),
      committer.record(entryWith()),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'rejected',
      'rejected',
      'fulfilled',
      'fulfilled',
    ]);
    const there = await database.query(
      "SELECT id FROM api_key_meta WHERE id IN ('a', 'b', 'lost') ORDER BY id",
      [],
    );
    expect(there).toEqual([{ id: 'a' }, { id: 'b' }]);
    // Its event is not there, and the numbers of the others have no gap.
    const events = await database.query(
      'SELECT sequence, event FROM api_key_audit_log ORDER BY sequence',
      [],
    );
    expect(events.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4]);
    expect(JSON.stringify(events)).not.toContain('lost');
  });
});

// If this fails, the embedded store forgets what was taken from a limit, or when a key was used, or fills its disk.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SqliteDatabase } from '../../src/store/sqlite/database.ts';
import { DeferredRows } from '../../src/store/sqlite/deferred-rows.ts';

const SMALL = { waitingRows: 12, journalEntries: 40 };
const RUNS = process.env.LONG ? 300 : 12;

describe('rows that wait for their place', () => {
  let folder: string;
  let files = 0;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-deferred-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const counters = (used: number) => ({ '60000_bQ': { used, end: 2_000_000_000_000 } });
  /** A process on the file; `commit` is what the store does with each batch. */
  const open = (path: string, bounds = SMALL) => {
    const database = SqliteDatabase.open(path, 'p');
    const rows = new DeferredRows(database, bounds);
    const commit = async (fails = false) => {
      const deferred = rows.take();
      if (fails) {
        rows.notWritten(deferred);
        return;
      }
      await database.commit({ events: '', guarded: [], limits: [], deferred });
      rows.written(deferred);
    };
    const journalRows = async () =>
      Number((await database.query('SELECT count(*) AS n FROM api_key_journal', []))[0]?.n);
    return { database, rows, commit, journalRows };
  };

  /** Ids all over the space, and names that are none. */
  const name = (i: number) =>
    i % 5 === 0
      ? `shared bucket ${i}`
      : `uid-apikey-${((i * 7919) % 65_536).toString(16).padStart(4, '0')}${'0'.repeat(12)}`;

  it('are as they were set, through writes that fail and processes that are killed', async () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constant('set' as const), row: fc.nat(40), value: fc.nat(1_000) }),
      },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('commit' as const), fails: fc.boolean() }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('rounds' as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('killed' as const) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 120 }), async (steps) => {
        const path = join(folder, `${files++}.db`);
        let store = open(path);
        const now = new Map<string, number>();
        let durable = new Map<string, number>();
        const check = (expected: ReadonlyMap<string, number>) => {
          for (let i = 0; i <= 40; i++) {
            const value = expected.get(name(i));
            expect(store.rows.quotas.get(name(i))).toEqual(value === undefined ? undefined : counters(value));
            expect(store.rows.lastUses.get(name(i))).toBe(value);
          }
        };
        let time = 0;
        for (const each of steps) {
          if (each.kind === 'set') {
            // Times only grow, and so does what is used in a window.
            time += each.value + 1;
            now.set(name(each.row), time);
            store.rows.quotas.set(name(each.row), counters(time));
            store.rows.lastUses.set(name(each.row), time);
          } else if (each.kind === 'commit') {
            await store.commit(each.fails);
            if (!each.fails) durable = new Map(now);
          } else if (each.kind === 'rounds') {
            for (let i = 0; i < 300; i++) await store.commit();
            durable = new Map(now);
          } else {
            await store.database.close();
            now.clear();
            for (const [key, value] of durable) now.set(key, value);
            store = open(path);
          }
          check(now);
        }
        await store.database.close();
      }),
      { numRuns: RUNS, seed: 7 },
    );
  });

  it('move to their tables, and leave the journal', async () => {
    const store = open(join(folder, 'x.db'), { ...SMALL, waitingRows: 1 });
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 30; i++) {
        store.rows.quotas.set(name(i), counters(100 * round + i));
        store.rows.lastUses.set(name(i), 100 * round + i);
        await store.commit();
      }
      // A part with each batch: rounds until none waits, since some rows came after one had begun.
      for (let i = 0; i < 3 * 256; i++) await store.commit();
      expect(await store.journalRows()).toBe(0);
    }
    const written = await store.database.query(
      "SELECT value FROM api_key_limits WHERE key = 'quota:shared bucket 5'",
      [],
    );
    expect(JSON.parse(String(written[0]?.value))).toEqual(counters(205));
    const uses = await store.database.query('SELECT count(*) AS n FROM api_key_last_uses', []);
    expect(uses[0]?.n).toBe(30);
    await store.database.close();
  });

  it('of a few busy keys do not make the journal grow without end', async () => {
    const store = open(join(folder, 'x.db'));
    let most = 0;
    for (let i = 0; i < 3_000; i++) {
      store.rows.quotas.set(name(i % 3), counters(i));
      await store.commit();
      if (i % 100 === 0) most = Math.max(most, await store.journalRows());
    }
    // A round takes 256 batches, and begins when 40 entries are there.
    expect(most).toBeLessThan(2 * (256 + 40) + 100);
    await store.database.close();
  });
});

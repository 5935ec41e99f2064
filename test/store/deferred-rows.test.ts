// If this fails, the embedded store forgets what was taken from a limit, or when a key was used, or fills its disk.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SqliteDatabase } from '../../src/store/sqlite/database.ts';
import { DEFERRED_TABLES, DeferredRows } from '../../src/store/sqlite/deferred-rows.ts';

import type { DeferredPart, Value } from '../../src/store/sqlite/thread-messages.ts';

const SMALL = { waitingRows: 4, journalEntries: 40, parts: 4, keptRows: 3 };
const RUNS = process.env.LONG ? 50_000 : 2_000;

/** What the writer thread does with a part, without a disk. */
class ModelFile {
  readonly #journal = new Map<number, string>();
  readonly #tables = DEFERRED_TABLES.map(() => new Map<string, Value>());

  #table(sql: string) {
    return this.#tables[DEFERRED_TABLES.findIndex(({ name }) => sql.includes(name))];
  }

  snapshotRead(sql: string) {
    const table = this.#table(sql);
    return (key?: Value) => {
      const value = table?.get(String(key));
      return value === undefined ? undefined : [value];
    };
  }

  journal(each: (entries: string) => void): readonly [number, number] {
    const ids = [...this.#journal.keys()].sort((a, b) => a - b);
    for (const id of ids) each(this.#journal.get(id) ?? '');
    return [(ids[0] ?? 1) - 1, ids.at(-1) ?? 0];
  }

  apply({ journal, journalId, folds, forget }: DeferredPart): void {
    if (journal !== '' && this.#journal.has(journalId)) throw new Error(`two journal rows ${journalId}`);
    if (journal !== '') this.#journal.set(journalId, journal);
    for (const { sql, rows } of folds)
      for (let i = 0; i < rows.length; i += 2) this.#table(sql)?.set(String(rows[i]), rows[i + 1] ?? null);
    for (const id of [...this.#journal.keys()]) if (id <= forget) this.#journal.delete(id);
  }
}

describe('rows that wait for their place', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-deferred-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const counters = (used: number) => ({ '60000_bQ': { used, end: 2_000_000_000_000 } });
  /** A process on the file; `commit` is what the store does with each batch. */
  const open = (path: string, bounds = SMALL) => {
    const database = SqliteDatabase.open(path, 'p');
    const rows = new DeferredRows(database, bounds);
    const commit = async () => {
      const deferred = rows.take();
      await database.commit({ events: '', guarded: [], deferred });
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

  it('are as they were set, through writes that fail and processes that are killed', () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constant('set' as const), row: fc.nat(6), later: fc.nat(1_000) }),
      },
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant('commit' as const),
          fails: fc.boolean(),
          times: fc.nat(9),
          // Changed while the transaction is under way.
          meanwhile: fc.option(fc.nat(6)),
        }),
      },
      // Asked for and not changed: what is kept of it may not hide a later change.
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('keep' as const), row: fc.nat(6) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('killed' as const) }) },
    );
    const run = fc.array(step, { minLength: 20, maxLength: 150, size: 'max' });
    fc.assert(
      fc.property(run, (steps) => {
        const file = new ModelFile();
        let rows = new DeferredRows(file, SMALL);
        const now = new Map<string, number>();
        let durable = new Map<string, number>();
        let time = 0;
        // Times only grow, and so does what is used in a window.
        const set = (row: number, later: number) => {
          time += later + 1;
          now.set(name(row), time);
          rows.quotas.set(name(row), counters(time));
          rows.lastUses.set(name(row), time);
        };
        for (const each of steps) {
          if (each.kind === 'set') set(each.row, each.later);
          else if (each.kind === 'keep')
            rows.quotas.keep(name(each.row), rows.quotas.get(name(each.row)) ?? {});
          else if (each.kind === 'killed') {
            now.clear();
            for (const [key, value] of durable) now.set(key, value);
            rows = new DeferredRows(file, SMALL);
          } else {
            for (let i = 0; i <= each.times; i++) {
              const deferred = rows.take();
              if (!each.fails) durable = new Map(now);
              if (each.meanwhile !== null) set(each.meanwhile, 1);
              if (!each.fails) file.apply(deferred);
              if (each.fails) rows.notWritten(deferred);
              else rows.written(deferred);
            }
          }
          for (let i = 0; i <= 6; i++) {
            const expected = now.get(name(i));
            const [quota, use] = [rows.quotas.get(name(i)), rows.lastUses.get(name(i))];
            if (use !== expected || quota?.['60000_bQ']?.used !== expected)
              expect.fail(`${name(i)} is ${JSON.stringify(quota)} and ${use}, not ${expected}`);
          }
        }
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
        // Read from the file at any time, so that what is written later is not what was read.
        expect(store.rows.quotas.get(name(i - 9))?.['60000_bQ']?.used).toBe(
          i < 9 ? undefined : 100 * round + i - 9,
        );
      }
      // A part with each batch: rounds until none waits, since some rows came after one had begun.
      for (let i = 0; i < 20; i++) await store.commit();
      // The last one may have come too late for the last round.
      expect(await store.journalRows()).toBeLessThanOrEqual(1);
    }
    const written = await store.database.query(
      "SELECT value FROM api_key_limits WHERE key = 'shared bucket 5'",
      [],
    );
    expect(JSON.parse(String(written[0]?.value))).toEqual(counters(205));
    const uses = await store.database.query('SELECT count(*) AS n FROM api_key_last_uses', []);
    expect(uses[0]?.n).toBe(30);
    await store.database.close();
  });

  it('are taken for one transaction at a time', () => {
    const rows = new DeferredRows(new ModelFile(), SMALL);
    rows.quotas.set('b', counters(1));
    const first = rows.take();
    expect(() => rows.take()).toThrow('under way already');
    rows.written(first);
    expect(() => rows.written(first)).toThrow('not the one under way');
    expect(() => rows.notWritten(first)).toThrow('not the one under way');
    expect(rows.take().journal).toBe('');
  });

  it('of a few busy keys do not make the journal grow without end', async () => {
    const store = open(join(folder, 'x.db'));
    let most = 0;
    for (let i = 0; i < 3_000; i++) {
      store.rows.quotas.set(name(i % 3), counters(i));
      await store.commit();
      if (i % 100 === 0) most = Math.max(most, await store.journalRows());
    }
    // A round begins when 40 entries are there, and takes a few batches.
    expect(most).toBeLessThan(100);
    await store.database.close();
  });
});

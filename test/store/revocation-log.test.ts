// If this fails, a restore brings back what was revoked, because the log of revocations has lost, changed or mixed up a line.
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { MongoClient } from 'mongodb';
import { afterAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { Chain } from '../../src/audit/chain.ts';
import { standingOf } from '../../src/keys/narrowing.ts';
import type { RevocationRecord } from '../../src/keys/ports/revocations.ts';
import { RETIRED_MS } from '../../src/keys/rotation.ts';
import { openRevocationLog } from '../../src/store/open-store.ts';
import type { RevocationLog } from '../../src/store/revocation-log.ts';
import { TestClock } from '../support/clock.ts';
import { keyWith } from '../support/keys.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase } from '../support/server.ts';

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-revocations-'));
afterAll(() => rmSync(folder, { recursive: true }));
const KEY = new Chain(Buffer.alloc(32, 7));
const clock = new TestClock();
const { key } = keyWith();
const id = (n: number) => `uid-apikey-${String(n).padStart(16, '0')}`;
const hashOf = (n: number) => String(n).padStart(64, '0');

function record(n: number, revision: number, fields: Partial<RevocationRecord> = {}): RevocationRecord {
  const standing = JSON.parse(JSON.stringify(standingOf({ ...key, disabled: true })));
  return { keyId: id(n), revision, time: clock.now(), standing, retired: [], ...fields };
}

let file: string;
let files = 0;
const warned: string[] = [];
const written: boolean[] = [];
beforeEach(() => {
  file = join(folder, `log${files++}`);
  warned.length = 0;
  written.length = 0;
});

const opened = (chain = KEY, url = file): Promise<RevocationLog> =>
  openRevocationLog({
    file: url,
    chain,
    clock,
    warn: (text) => void warned.push(text),
    written: (ok) => void written.push(ok),
  });

async function use<T>(what: (log: RevocationLog) => Promise<T>, chain = KEY, url = file): Promise<T> {
  const log = await opened(chain, url);
  try {
    return await what(log);
  } finally {
    await log.close();
  }
}

const filled = (chain = KEY) =>
  use(async (log) => {
    await log.begin(0);
    for (let n = 1; n <= 3; n++) await log.append(record(n, n));
  }, chain);

const ids = (found: ReadonlyMap<string, unknown>) => [...found.keys()].sort();

/** What both kinds of log do. */
function contract(urlOf: () => string): void {
  it('has not begun, then knows how far it reaches, also after it is opened again', async () => {
    const url = urlOf();
    await use(
      async (log) => {
        expect(await log.reach()).toBeUndefined();
        // Nothing is claimed of a log that has not begun.
        await log.cover(9);
        expect(await log.reach()).toBeUndefined();
        await log.begin(5);
        expect(await log.reach()).toEqual({ begins: 5, covered: 5, highest: 5 });
        await log.append(record(1, 7));
        await log.cover(6);
        await log.cover(2);
      },
      KEY,
      url,
    );
    expect(await use((log) => log.reach(), KEY, url)).toEqual({ begins: 5, covered: 6, highest: 7 });
  });

  it('answers with the newest record of a key, and all hashes that were retired', async () => {
    const url = urlOf();
    const retired = (n: number) => [{ hash: hashOf(n), time: clock.now() }];
    const newest = record(1, 9, { retired: retired(2), chain: { processId: 'p', sequence: 4 } });
    await use(
      async (log) => {
        await log.begin(0);
        await log.append(record(1, 3, { retired: retired(1), chain: { processId: 'p', sequence: 2 } }));
        await log.append(newest);
        // Came late.
        await log.append(record(1, 8, { retired: retired(3) }));
        await log.append(record(2, 4, { chain: { processId: 'q', sequence: 7 } }));
      },
      KEY,
      url,
    );
    await use(
      async (log) => {
        const found = await log.since(4);
        expect(ids(found)).toEqual([id(1)]);
        const { retired: all = [], ...rest } = found.get(id(1)) ?? {};
        expect(rest).toEqual({ ...newest, retired: undefined });
        expect(all.map(({ hash }) => hash).sort()).toEqual([hashOf(1), hashOf(2), hashOf(3)]);
        expect(ids(await log.since(3))).toEqual([id(1), id(2)]);
        expect(ids(await log.since(9))).toEqual([]);
        expect(await log.revisionsOf(new Set([id(1), id(3)]))).toEqual(new Map([[id(1), 9]]));
        expect(await log.places()).toEqual(
          new Map([
            ['p', 4],
            ['q', 7],
          ]),
        );
      },
      KEY,
      url,
    );
  });
}

describe('the log in a file', () => {
  contract(() => file);

  it('is for its owner only, and is made with its name on the disk', async () => {
    await filled();
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it.each<[string, Chain]>([
    ['with a chain key', KEY],
    ['without one', new Chain(undefined)],
  ])(
    'whose line was changed, taken out, moved or put in is refused with its number, %s',
    async (_, chain) => {
      await filled(chain);
      const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
      expect(lines).toHaveLength(4);
      const [begin = '', one = '', two = '', three = ''] = lines;
      const tampered: [string[], number][] = [
        [[begin, one.replace('"disabled":true', '"disabled":false'), two, three], 2],
        [[begin, two, three], 2],
        [[begin, one, three, two], 3],
        [[begin, one, one, two, three], 3],
        [[one, two, three], 1],
        [['', begin, one], 1],
        [[begin.slice(0, 30), one], 1],
      ];
      for (const [now, line] of tampered) {
        writeFileSync(file, `${now.join('\n')}\n`);
        await expect(opened(chain), `${line}`).rejects.toMatchObject({
          exitCode: 69,
          message: expect.stringContaining(
            `REVOCATION_LOG: line ${line} of ${file} is not what was written there`,
          ),
        });
        // The evidence stays.
        expect(readFileSync(file, 'utf8')).toBe(`${now.join('\n')}\n`);
      }
    },
  );

  it('of another chain key is refused', async () => {
    await filled();
    await expect(opened(new Chain(Buffer.alloc(32, 8)))).rejects.toThrow('with another chain key');
    await expect(opened(new Chain(undefined))).rejects.toThrow('line 1 of');
  });

  it('whose last line was cut by a crash is used without it, wherever it was cut', async () => {
    await filled();
    const whole = readFileSync(file);
    const last = whole.lastIndexOf(0x0a, whole.length - 2) + 1;
    const cuts = fc.integer({ min: last + 1, max: whole.length - 1 });
    await fc.assert(
      fc.asyncProperty(cuts, async (size) => {
        writeFileSync(file, whole);
        truncateSync(file, size);
        await use(async (log) => {
          expect(ids(await log.since(0))).toEqual([id(1), id(2)]);
          await log.append(record(4, 4));
        });
        expect(warned.at(-1)).toContain('is not whole and is left out');
        expect(ids(await use((log) => log.since(0)))).toEqual([id(1), id(2), id(4)]);
      }),
      { seed: 7, numRuns: process.env.LONG ? 500 : 20 },
    );
  });

  it('that a power cut has filled with zeros at its end is used without them', async () => {
    await filled();
    appendFileSync(file, Buffer.alloc(4_096));
    expect(ids(await use((log) => log.since(0)))).toEqual([id(1), id(2), id(3)]);
  });

  it('that cannot be written tells who narrows, and has it when it can', async () => {
    const log = await opened();
    await log.begin(0);
    renameSync(file, `${file}.away`);
    await expect(log.append(record(1, 1))).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      facts: { audited: true },
    });
    await expect(log.settled()).rejects.toThrow('REVOCATION_LOG cannot be written');
    expect(written).toEqual([true, false, false]);
    renameSync(`${file}.away`, file);
    await log.settled();
    await log.close();
    expect(ids(await use((again) => again.since(0)))).toEqual([id(1)]);
  });

  it('that another process has written to is not written over', async () => {
    const [one, other] = [await opened(), await opened()];
    await one.begin(0);
    await expect(other.append(record(1, 1))).rejects.toThrow('cannot be written');
    await one.append(record(2, 2));
    await one.close();
    await other.close();
    expect(ids(await use((log) => log.since(0)))).toEqual([id(2)]);
  });

  it('whose first line was cut by a crash is begun anew', async () => {
    await use((log) => log.begin(5));
    const whole = readFileSync(file);
    for (let size = 0; size < whole.length; size++) {
      writeFileSync(file, whole.subarray(0, size));
      expect(await use((log) => log.reach()), `${size}`).toBeUndefined();
    }
  });

  it('is no other file, which stays as it is', async () => {
    const others = [
      'precious',
      'x'.repeat(10_000),
      'SQLite format 3\0',
      'a\nb',
      'f'.repeat(65),
      '\0'.repeat(4_096),
      '{"kind":"begin"}',
    ];
    for (const other of others) {
      writeFileSync(file, other);
      await expect(opened(), other.slice(0, 20)).rejects.toMatchObject({ exitCode: 69 });
      expect(readFileSync(file, 'utf8')).toBe(other);
    }
  });

  it('that cannot be had says so', async () => {
    await expect(opened(KEY, join(folder, 'none', 'log'))).rejects.toMatchObject({
      exitCode: 69,
      message: expect.stringMatching(/^REVOCATION_LOG: cannot use .*ENOENT/),
    });
    await expect(opened(KEY, folder)).rejects.toThrow(/^REVOCATION_LOG: cannot use/);
  });

  it('fsyncs once for many changes at once, and keeps them in order', async () => {
    await use(async (log) => {
      await log.begin(0);
      written.length = 0;
      await Promise.all(Array.from({ length: 500 }, (_, n) => log.append(record(n, n + 1))));
    });
    expect(written.length).toBeLessThan(5);
    const revisions = readFileSync(file, 'utf8').matchAll(/"revision":(\d+)/g);
    expect([...revisions].map(([, n]) => Number(n))).toEqual(Array.from({ length: 501 }, (_, n) => n));
  });

  it('stays below twice the size of a line for each key and a mebibyte, and loses nothing of what counts', async () => {
    const [keys, rounds] = [60, 12];
    const standing = { ...record(0, 0).standing, revokeNote: 'n'.repeat(4_000) };
    await use(async (log) => {
      await log.begin(3);
      for (let round = 0; round < rounds; round++) {
        const retiredAt = clock.now() - (round === 0 ? RETIRED_MS : 0);
        await Promise.all(
          Array.from({ length: keys }, (_, n) =>
            log.append(
              record(n, 10 + round * keys + n, {
                standing,
                retired: [{ hash: hashOf(round * keys + n), time: retiredAt }],
              }),
            ),
          ),
        );
        expect((await log.reach())?.highest).toBe(9 + (round + 1) * keys);
      }
      await log.cover(8_000);
    });
    const size = statSync(file).size;
    const lines = readFileSync(file, 'utf8').split('\n').length;
    expect(lines).toBeLessThan(keys * rounds);
    expect(size).toBeLessThan(1_048_576 + 2 * keys * (4_600 + rounds * 110));
    await use(async (log) => {
      expect(await log.reach()).toEqual({ begins: 3, covered: 8_000, highest: 8_000 });
      const found = await log.since(0);
      expect(found.size).toBe(keys);
      for (let n = 0; n < keys; n++) {
        expect(found.get(id(n))?.revision).toBe(10 + (rounds - 1) * keys + n);
        const hashes = found.get(id(n))?.retired.map(({ hash }) => hash);
        for (let round = 1; round < rounds; round++) expect(hashes).toContain(hashOf(round * keys + n));
        expect(hashes).not.toContain(hashOf(n));
      }
    });
    expect(warned).toEqual([]);
  });
});

requires('mongodb').describe('the log on MongoDB', () => {
  const databases: ReturnType<typeof freshDatabase>[] = [];
  const freshUrl = () => {
    const database = freshDatabase('mongo', inject('mongoUri'));
    databases.push(database);
    return database.url;
  };
  afterAll(async () => {
    for (const { drop } of databases) await drop();
  });
  contract(freshUrl);

  it('whose documents were changed is refused with the name of one', async () => {
    const url = freshUrl();
    await use(
      async (log) => {
        await log.begin(0);
        await log.append(record(1, 1, { retired: [{ hash: hashOf(1), time: clock.now() }] }));
      },
      KEY,
      url,
    );
    const client = await new MongoClient(url).connect();
    const docs = client.db().collection<{ _id: string }>('api_key_revocations');
    for (const [_id, change] of [
      [id(1), { revision: 9 }],
      [id(1), { text: JSON.stringify(record(1, 1)) }],
      [`retired:${hashOf(1)}`, { key_id: id(2) }],
      ['log', { begins: -1 }],
      ['log', { covered: 99 }],
    ] as const) {
      const before = await docs.findOneAndUpdate({ _id }, { $set: change });
      const seen = use(async (log) => [await log.reach(), await log.since(0)], KEY, url);
      // A hash of another key is not asked for.
      if (_id.startsWith('retired'))
        expect([...((await seen)[1] as Map<string, RevocationRecord>).values()][0]?.retired).toEqual([]);
      else
        await expect(seen, JSON.stringify(change)).rejects.toThrow(
          `the document ${_id} is not what was written`,
        );
      if (before !== null) await docs.replaceOne({ _id }, before);
    }
    await client.close();
  });
});

// If this fails, a backup is written where it must not be, over a file of somebody else's, or half of one is left and taken for whole.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BackupFolder } from '../../src/server/backup-folder.ts';
import { failureOf, onEachStore } from '../rpc/cases.ts';
import { TestClock } from '../support/clock.ts';
import type { Clients } from '../support/server.ts';
import { Place } from './place.ts';
import { backUp, Restorable } from './restorable.ts';

const LONG = process.env.LONG !== undefined;

describe('a name of a backup', () => {
  const place = new Restorable();
  let clients: Clients;
  beforeAll(async () => {
    clients = (await place.serve()).clients('grpc');
  });
  afterAll(() => place.drop());
  const refusal = (name: string) => failureOf(backUp(clients, name));

  it('that is a path, hidden or invalid is refused, and nothing is written', async () => {
    // The anchor is written each second.
    const files = () => readdirSync(place.folder).filter((name) => !name.includes('anchor'));
    const before = files();
    const odd = fc.oneof(
      fc.constantFrom(
        '',
        '.',
        '..',
        '../x',
        '/tmp/x',
        'a/b',
        'a\\b',
        '.x',
        '-x',
        'x\0',
        'x\n',
        'é',
        'x'.repeat(201),
        ' x',
      ),
      fc.string({ unit: 'binary' }).filter((name) => !/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(name)),
    );
    await fc.assert(
      fc.asyncProperty(odd, async (name) => {
        // Halves of surrogate pairs become U+FFFD on their way.
        expect(await refusal(name)).toMatchObject({ code: 'InvalidArgument', fields: ['name'] });
      }),
      { seed: 5, numRuns: LONG ? 2_000 : 40 },
    );
    expect(files()).toEqual(before);
  });

  it('of an existing file is refused, whatever the file is', async () => {
    writeFileSync(join(place.folder, 'taken'), 'mine');
    expect(await refusal('taken')).toMatchObject({ code: 'AlreadyExists', reason: 'BACKUP_EXISTS' });
    expect(await refusal('chain.key')).toMatchObject({ reason: 'BACKUP_EXISTS' });
    expect(readFileSync(join(place.folder, 'taken'), 'utf8')).toBe('mine');
  });

  it('with dots inside is accepted', async () => {
    expect(await backUp(clients, 'a..b-2026.db')).toMatchObject({ name: 'a..b-2026.db' });
  });

  it('is refused without BACKUP_DIR, or when that folder does not exist', async () => {
    await place.stop();
    const off = (await place.start({ ...place.settings, BACKUP_DIR: '' })).clients('grpc');
    expect(await failureOf(backUp(off))).toMatchObject({ code: 'FailedPrecondition', reason: 'BACKUP_OFF' });
    await place.stop();
    const none = join(place.folder, 'none');
    const gone = (await place.start({ ...place.settings, BACKUP_DIR: none })).clients('grpc');
    expect(await failureOf(backUp(gone))).toMatchObject({
      reason: 'BACKUP_NOT_WRITTEN',
      text: 'the backup cannot be written to BACKUP_DIR: ENOENT',
    });
    await place.stop();
  });
});

onEachStore('CreateBackup on %s', (kind) => {
  it('is refused on MongoDB with the name of the runbook', async () => {
    if (kind === 'sqlite') return;
    const place = new Place(kind);
    const clients = (await place.start({ BACKUP_DIR: place.database.folder })).clients('grpc');
    expect(await failureOf(backUp(clients))).toMatchObject({
      code: 'FailedPrecondition',
      reason: 'BACKUP_NOT_HERE',
      text: expect.stringContaining('docs/runbooks.md'),
    });
    await place.drop();
  });
});

describe('a backup that fails', () => {
  const place = new Restorable();
  afterAll(() => place.drop());
  const clock = new TestClock();
  const folderOf = (copyTo: ConstructorParameters<typeof BackupFolder>[0]['copyTo']) =>
    new BackupFolder({ folder: place.folder, copyTo, clock });

  it('on a full disk leaves no file, and the next one succeeds', async () => {
    let full = true;
    const folder = folderOf(async (file, told) => {
      writeFileSync(file, 'half');
      writeFileSync(`${file}-journal`, 'half');
      told(4, 8);
      if (full) throw Object.assign(new Error('database or disk is full'), { errcode: 13 });
      return { revision: 7 };
    });
    await expect(folder.begin('x').made).rejects.toMatchObject({
      code: 'BACKUP_NOT_WRITTEN',
      message: 'the backup cannot be written to BACKUP_DIR: database or disk is full',
    });
    expect(readdirSync(place.folder).filter((name) => name.includes('x'))).toEqual([]);
    full = false;
    expect(await folder.begin('x').made).toEqual({
      name: 'x',
      sizeBytes: 4,
      revision: 7,
      createTime: clock.now(),
    });
    expect(
      readdirSync(place.folder)
        .filter((name) => name.includes('x'))
        .sort(),
    ).toEqual(['x', 'x.sha256']);
  });

  it('when its caller disconnects leaves no file, and another one waits meanwhile', async () => {
    let goOn = () => {};
    const waiting = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const folder = folderOf(async (file, told) => {
      writeFileSync(file, 'half');
      await waiting;
      told(4, 8);
      return { revision: 7 };
    });
    const job = folder.begin('y');
    expect(() => folder.begin('z')).toThrow('another backup is being written');
    job.giveUp();
    goOn();
    await expect(job.made).rejects.toMatchObject({
      code: 'BACKUP_NOT_WRITTEN',
      message: 'the backup was given up',
    });
    expect(existsSync(join(place.folder, 'y'))).toBe(false);
    expect(place.leftovers()).toEqual([]);
    expect(await folder.begin('z').made).toMatchObject({ name: 'z' });
  });

  it('does not replace a file that was created meanwhile', async () => {
    const folder = folderOf(async (file) => {
      writeFileSync(file, 'copy');
      writeFileSync(join(place.folder, 'w'), 'mine');
      return { revision: 7 };
    });
    await expect(folder.begin('w').made).rejects.toMatchObject({ code: 'BACKUP_EXISTS' });
    expect(readFileSync(join(place.folder, 'w'), 'utf8')).toBe('mine');
  });

  it('when the client of the server disconnects leaves no file', async () => {
    const server = await place.serve();
    const { admin } = server.clients('grpc');
    await Promise.all(
      Array.from({ length: 4 }, (_, n) =>
        admin.importKeys({
          keys: Array.from({ length: 1_000 }, (_, i) => ({
            ...{ name: 'n'.repeat(700), ownerId: 'o', keyType: 1, scopes: ['a'] },
            keyHash: `${n}${String(i).padStart(4, '0')}`.padStart(64, '0'),
          })),
        }),
      ),
    );
    const gone = new AbortController();
    const reading = (async () => {
      for await (const _ of admin.createBackup({ name: 'v' }, { signal: gone.signal })) gone.abort();
    })();
    await reading.catch(() => {});
    await place.stop();
    // Whole, or not there.
    if (existsSync(join(place.folder, 'v'))) await place.restore({}, false, join(place.folder, 'v'));
    expect(place.leftovers()).toEqual([]);
  });
});

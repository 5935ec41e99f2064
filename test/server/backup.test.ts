// If this fails, backups stop calls, or a restore loses the store or makes revoked keys work again.
import {
  closeSync,
  cpSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Restored } from '../../src/server/restore.ts';
import { decisionOf, failureOf, makeKey } from '../rpc/cases.ts';
import type { TestServer } from '../support/server.ts';
import { againEvents, answers, narrowed } from './narrowed.ts';
import { backUp, Restorable } from './restorable.ts';

const LONG = process.env.LONG !== undefined;

describe('a backup under load that is restored after changes', () => {
  const place = new Restorable();
  afterAll(() => place.drop());
  let server: TestServer;
  let made: Awaited<ReturnType<typeof narrowed>>;
  let before: Record<string, string>;
  let lostId: string;
  let asked: string;

  beforeAll(async () => {
    server = await place.serve();
    made = await narrowed(server.clients('grpc'), place.clock);
    asked = (await makeKey(server.clients('grpc'))).secret;
  });

  it('is written by the command during calls, with progress as JSON lines', async () => {
    const clients = server.clients('grpc');
    let going = true;
    const told: string[] = [];
    const caller = async () => {
      while (going) told.push(await decisionOf(clients, asked));
    };
    const callers = Array.from({ length: 8 }, caller);
    const address = `127.0.0.1:${server.running.ports.grpc}`;
    const args = ['one.backup', '--address', address, '--key-file', join(place.folder, 'admin.key')];
    const { code, stdout, stderr } = await place.command('backup', ...args, '--json');
    going = false;
    await Promise.all(callers);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const { backup } = lines.at(-1);
    expect(backup).toMatchObject({ name: 'one.backup', revision: '15' });
    expect(Number(backup.sizeBytes)).toBe(statSync(place.file).size);
    expect(statSync(place.file).mode & 0o777).toBe(0o600);
    expect(new Set(told)).toEqual(new Set(['VALID']));
    expect(place.leftovers()).toEqual([]);
    const again = await place.command('backup', ...args);
    expect(again).toMatchObject({ code: 1, stdout: '' });
    expect(again.stderr).toContain('there is a file one.backup in BACKUP_DIR already (BACKUP_EXISTS)');
  });

  it('is not restored while the server runs', async () => {
    const refused = await place.command('restore', place.file);
    expect(refused.code).toBe(69);
    expect(refused.stderr).toContain('another process is using');
  });

  it('is restored by the command, which reports the lost events', async () => {
    const clients = server.clients('grpc');
    await made.narrow(clients);
    const { id } = await makeKey(clients, { name: 'made later' });
    lostId = id;
    await clients.admin.revokeKey({ id, reason: 1 });
    before = await answers(clients, made.secrets);
    await place.stop();
    const stood = readFileSync(place.store);
    const { code, stdout, stderr } = await place.command('restore', place.file, '--json');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines[0]).toMatchObject({ stage: 'copying' });
    const restored = lines.at(-1) as Restored;
    expect(restored).toMatchObject({ revision: 15, keysToCheck: 13 });
    expect(restored.lostEvents).toBeGreaterThan(100);
    expect(readFileSync(restored.before ?? '')).toEqual(stood);
    expect(place.leftovers()).toEqual([]);
  });

  it('gives the decisions from before the restore, each repeated change has its event, and the chains are intact', async () => {
    server = await place.serve();
    const clients = server.clients('grpc');
    expect(await answers(clients, made.secrets)).toEqual(before);
    expect(await againEvents(clients)).toHaveLength(15);
    expect(await clients.admin.verifyAudit({})).toMatchObject({ intact: true });
    const { events } = await clients.admin.listAuditEvents({ outcome: 'RESTORED' });
    expect(events).toMatchObject([
      { method: 'apikeyd/restore', reason: expect.stringMatching(/^lost [0-9a-f]{16} \d+ \d+$/) },
    ]);
    expect(await failureOf(clients.admin.getKey({ id: lostId }))).toMatchObject({ reason: 'KEY_NOT_FOUND' });
    const { heads } = JSON.parse(readFileSync(join(place.folder, 'chain.key.anchor'), 'utf8'));
    const [, lost] = /^lost (\w+) /.exec(events[0]?.reason ?? '') ?? [];
    expect(heads.map(({ processId }: { processId: string }) => processId)).toContain(lost);
  });

  it('lets the server start again, and accepts heads that were exported before the restore', async () => {
    await place.stop();
    server = await place.serve();
    const clients = server.clients('grpc');
    expect(await answers(clients, made.secrets)).toEqual(before);
    expect(await clients.admin.verifyAudit({})).toMatchObject({ intact: true });
    await place.stop();
  });
});

describe('a refused restore loses nothing', () => {
  const place = new Restorable();
  let stands: Buffer;
  let key: { id: string; secret: string };
  beforeAll(async () => {
    const clients = (await place.serve()).clients('grpc');
    key = await makeKey(clients);
    await backUp(clients);
    await clients.admin.revokeKey({ id: key.id, reason: 1 });
    await place.stop();
    stands = readFileSync(place.store);
  });
  afterAll(() => place.drop());

  async function expectRefused(restoring: Promise<unknown>, text: string | RegExp): Promise<void> {
    await expect(restoring).rejects.toThrow(text);
    expect(readFileSync(place.store).equals(stands)).toBe(true);
    expect(place.leftovers()).toEqual([]);
    expect(readdirSync(place.folder).filter((name) => name.includes('before-restore'))).toEqual([]);
  }

  it('when the file is damaged at any place', async () => {
    const whole = readFileSync(place.file);
    const damaged = join(place.folder, 'damaged');
    cpSync(`${place.file}.sha256`, `${damaged}.sha256`);
    const damage = fc.record({
      place: fc.nat(whole.length - 1),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 16 }),
      cutTo: fc.option(fc.nat(whole.length - 1)),
    });
    await fc.assert(
      fc.asyncProperty(damage, async ({ place: at, bytes, cutTo }) => {
        writeFileSync(damaged, whole);
        const file = openSync(damaged, 'r+');
        writeSync(file, bytes, 0, bytes.length, at);
        closeSync(file);
        if (cutTo !== null) truncateSync(damaged, cutTo);
        if (readFileSync(damaged).equals(whole)) return;
        await expectRefused(place.restore({}, false, damaged), 'it is not what');
        // Without its checksum, the checks of SQLite and of the audit chains find the damage.
        if (cutTo === null) return;
        rmSync(`${damaged}.sha256`);
        await expectRefused(place.restore({}, false, damaged), /nothing was changed$/);
        cpSync(`${place.file}.sha256`, `${damaged}.sha256`);
      }),
      { seed: 11, numRuns: LONG ? 300 : 12 },
    );
  });

  it('when the file is no backup', async () => {
    const other = join(place.folder, 'other');
    await expectRefused(place.restore({}, false, join(place.folder, 'none')), 'ENOENT');
    await expectRefused(place.restore({}, false, place.folder), 'it is no file');
    await expectRefused(place.restore({}, false, place.store), 'it is the store itself');
    for (const text of ['', 'not SQLite', 'x'.repeat(100_000)]) {
      writeFileSync(other, text);
      await expectRefused(place.restore({}, false, other), 'nothing was changed');
    }
  });

  it('when the chain key differs, or the audit log was tampered with', async () => {
    const otherKey = join(place.folder, 'other.key');
    writeFileSync(otherKey, 'x'.repeat(32));
    await expectRefused(
      place.restore({ AUDIT_CHAIN_KEY_FILE: otherKey }),
      /its audit is not intact, or AUDIT_CHAIN_KEY_FILE is another one/,
    );
    const log = readFileSync(place.logFile, 'utf8');
    writeFileSync(place.logFile, log.replace('"kind":"key"', '"kind":"kex"'));
    await expectRefused(place.restore(), /^REVOCATION_LOG: line \d+ of/);
    writeFileSync(place.logFile, log);
  });

  it('when the revocation log is missing or starts after the backup, without --without-log', async () => {
    const named = 'name the log that was kept, or restore with --without-log';
    await expectRefused(place.restore({ REVOCATION_LOG: 'off' }), named);
    const empty = join(place.folder, 'empty.log');
    await expectRefused(place.restore({ REVOCATION_LOG: empty }), named);
    const late = (await place.start({ ...place.settings, REVOCATION_LOG: empty })).clients('grpc');
    await makeKey(late);
    await place.stop();
    stands = readFileSync(place.store);
    await expectRefused(
      place.restore({ REVOCATION_LOG: empty }),
      /it begins at revision 3, and the backup ends at 2/,
    );
  });

  it('and a start that could not repeat the revocations is refused', async () => {
    const restored = await place.restore();
    expect(restored).toMatchObject({ revision: 2, keysToCheck: 1 });
    for (const settings of [{ REVOCATION_LOG: 'off' }, { REVOCATION_LOG: join(place.folder, 'new.log') }])
      await expect(place.start({ ...place.settings, ...settings })).rejects.toMatchObject({
        exitCode: 69,
        message: expect.stringMatching(/^REVOCATION_LOG: is (off|empty), and the store was restored/),
      });
    const clients = (await place.serve()).clients('grpc');
    expect(await decisionOf(clients, key.secret)).toBe('REVOKED');
    await place.stop();
  });

  it('runs with --without-log, which the audit records', async () => {
    const off = { REVOCATION_LOG: 'off' };
    expect(await place.restore(off, true)).toMatchObject({ keysToCheck: undefined });
    const clients = (await place.start({ ...place.settings, ...off })).clients('grpc');
    expect(await decisionOf(clients, key.secret)).toBe('VALID');
    const { events } = await clients.admin.listAuditEvents({ outcome: 'RESTORED' });
    expect(events).toHaveLength(1);
    expect(await clients.admin.verifyAudit({})).toMatchObject({ intact: true });
    await place.stop();
  });

  it('replaces a damaged store by the backup, and keeps the damaged files', async () => {
    writeFileSync(place.store, 'a damaged store');
    writeFileSync(`${place.store}-wal`, 'and its journal');
    const { before = '' } = await place.restore();
    expect(readFileSync(before, 'utf8')).toBe('a damaged store');
    expect(readFileSync(`${before}-wal`, 'utf8')).toBe('and its journal');
    const clients = (await place.serve()).clients('grpc');
    expect(await decisionOf(clients, key.secret)).toBe('REVOKED');
    await place.stop();
  });

  it('is refused on MongoDB with the name of the runbook', () =>
    expect(place.restore({ STORE_URL: 'mongodb://127.0.0.1:1/x', REVOCATION_LOG: '' })).rejects.toMatchObject(
      {
        exitCode: 78,
        message: expect.stringContaining('docs/runbooks.md'),
      },
    ));
});

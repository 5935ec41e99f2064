// If this fails, a restored copy of a store admits keys that were revoked, narrowed or rotated since.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { readConfig } from '../../src/config.ts';
import { hashSecret } from '../../src/keys/secret.ts';
import { revocationLogOf } from '../../src/server/revocations.ts';
import { decisionOf, failureOf, makeKey, onEachStore } from '../rpc/cases.ts';
import type { Clients } from '../support/server.ts';
import { againEvents, answers, narrowed } from './narrowed.ts';
import { Place } from './place.ts';

onEachStore('a store on %s that was set back to an earlier copy', (kind) => {
  const place = new Place(kind);
  afterAll(() => place.drop());
  let clients: Clients;
  let made: Awaited<ReturnType<typeof narrowed>>;
  let before: Record<string, string>;
  let epoch: string;
  const epochOf = async () => {
    const ended = new AbortController();
    for await (const notice of clients.auth.watchKeys({}, { signal: ended.signal })) return notice.epoch;
    return '';
  };
  const restart = async () => {
    await place.stop();
    clients = (await place.start()).clients('grpc');
  };
  beforeAll(async () => {
    clients = (await place.start()).clients('grpc');
    made = await narrowed(clients, place.clock);
    await place.stop();
    const setBack = await place.copy();
    clients = (await place.start()).clients('grpc');
    await made.narrow(clients);
    await makeKey(clients, { name: 'made after the copy' }).then(({ id }) =>
      clients.admin.revokeKey({ id, reason: 1 }),
    );
    before = await answers(clients, made.secrets);
    epoch = await epochOf();
    await place.stop();
    await setBack();
  });

  it('gives the decisions from before, and each repeated change has its event', async () => {
    clients = (await place.start()).clients('grpc');
    expect(await answers(clients, made.secrets)).toEqual(before);
    const { keys } = made;
    expect(await againEvents(clients)).toEqual(
      [
        `${keys.revoked.id} REVOKED`,
        `${keys.expired.id} EXPIRED`,
        `${keys.expiring.id} EXPIRED`,
        `${keys.disabled.id} DISABLED`,
        `${keys.scopes.id} SCOPES`,
        `${keys.allowlist.id} ALLOWLIST`,
        `${keys.limits.id} LIMITS`,
        `${keys.rotated.id} ROTATED`,
        `${keys.completed.id} ROTATED`,
        `${keys.twice.id} ROTATED`,
        ...['ROTATED', 'DISABLED', 'SCOPES', 'ALLOWLIST'].map((facet) => `${keys.everything.id} ${facet}`),
        `${keys.widened.id} SCOPES`,
      ].sort(),
    );
    const { key } = await clients.admin.getKey({ id: keys.revoked.id });
    expect(key).toMatchObject({ revokeReason: 1 });
    expect(await decisionOf(clients, made.secrets.twiceOnce ?? '')).toBe('ROTATED');
  });

  it('has a new epoch, and revisions above all that a client may have seen', async () => {
    expect(await epochOf()).not.toBe(epoch);
    const { revision } = await clients.admin.getStats({});
    expect(revision).toBeGreaterThan(1_000_000n);
    const { reasons } = await clients.auth.validateKey({
      key: made.secrets.untouched ?? '',
      clientIp: '10.0.0.1',
      dryRun: true,
      minRevision: revision,
    });
    expect(reasons).toEqual([]);
  });

  it('keeps its decisions after the next start, which repeats nothing', async () => {
    const events = await againEvents(clients);
    const { revision } = await clients.admin.getStats({});
    await restart();
    expect(await answers(clients, made.secrets)).toEqual(before);
    expect(await againEvents(clients)).toEqual(events);
    expect((await clients.admin.getStats({})).revision).toBe(revision);
  });

  it('accepts changes, and a key narrowed then stays narrowed when another copy is restored', async () => {
    await place.stop();
    const setBack = await place.copy();
    clients = (await place.start()).clients('grpc');
    await clients.admin.revokeKey({ id: made.keys.untouched.id, reason: 1 });
    await place.stop();
    await setBack();
    clients = (await place.start()).clients('grpc');
    expect(await decisionOf(clients, made.secrets.untouched ?? '', { clientIp: '10.0.0.1' })).toBe('REVOKED');
    expect((await againEvents(clients)).filter((event) => event.startsWith(made.keys.untouched.id))).toEqual([
      `${made.keys.untouched.id} REVOKED`,
    ]);
  });
});

onEachStore('a process on %s that was killed', (kind) => {
  const place = new Place(kind);
  afterAll(() => place.drop());

  it('after the commit and before its line in the log is logged by the next start, and survives a restored copy', async () => {
    let clients = (await place.start()).clients('grpc');
    const [key, other] = [await makeKey(clients), await makeKey(clients)];
    await place.stop();
    const setBack = await place.copy();
    const loseLine = await place.copyLog();
    clients = (await place.start()).clients('grpc');
    await clients.admin.revokeKey({ id: key.id, reason: 1 });
    await place.stop();
    // As the kill has left it.
    await loseLine();
    const { log } = await place.start();
    expect(log.join('')).toContain('noted in REVOCATION_LOG what a crash had kept from it');
    await place.stop();
    await setBack();
    clients = (await place.start()).clients('grpc');
    expect(await decisionOf(clients, key.secret)).toBe('REVOKED');
    expect(await decisionOf(clients, other.secret)).toBe('VALID');
    await place.stop();
  });

  it('after its line in the log and before the response is applied once', async () => {
    let clients = (await place.start()).clients('grpc');
    const key = await makeKey(clients);
    await clients.admin.revokeKey({ id: key.id, reason: 1 });
    const events = await againEvents(clients);
    await place.stop();
    clients = (await place.start()).clients('grpc');
    expect(await decisionOf(clients, key.secret)).toBe('REVOKED');
    expect(await againEvents(clients)).toEqual(events);
    await place.stop();
  });
});

describe('REVOCATION_LOG', () => {
  it.each<[string, Record<string, string>, string | undefined]>([
    ['unset, embedded store', { STORE_URL: 'sqlite:/x/a.db' }, '/x/a.db.revocations'],
    ['unset, MongoDB', { STORE_URL: 'mongodb://x' }, undefined],
    ['off', { STORE_URL: 'sqlite:/x/a.db', REVOCATION_LOG: 'off' }, undefined],
    ['a file', { STORE_URL: 'sqlite:/x/a.db', REVOCATION_LOG: '/y/log' }, '/y/log'],
    ['a MongoDB', { STORE_URL: 'mongodb://x', REVOCATION_LOG: 'mongodb://y' }, 'mongodb://y'],
    ['a MongoDB beside the embedded store', { REVOCATION_LOG: 'mongodb+srv://y' }, 'mongodb+srv://y'],
  ])('%s', (_, settings, where) => expect(revocationLogOf(readConfig(settings))).toBe(where));

  it('that is a file is refused with MongoDB, where several processes would write to it', () =>
    expect(() => revocationLogOf(readConfig({ STORE_URL: 'mongodb://x', REVOCATION_LOG: '/y/log' }))).toThrow(
      /^REVOCATION_LOG: with a store on MongoDB it must be mongodb:\/\/… or off$/,
    ));

  it.each<[string, string]>([
    ['sqlite:/x/a.db', '/x/../x/a.db'],
    ['mongodb://x/y', 'mongodb://u:p@x/y?w=1'],
  ])('that is the store itself is refused: %s', (STORE_URL, REVOCATION_LOG) =>
    expect(() => revocationLogOf(readConfig({ STORE_URL, REVOCATION_LOG }))).toThrow(
      'REVOCATION_LOG: is the store itself',
    ),
  );

  it('that cannot be written blocks changes except revocations and expiries', async () => {
    const place = new Place('sqlite');
    const server = await place.start();
    const clients = server.clients('grpc');
    const [one, other] = [await makeKey(clients), await makeKey(clients)];
    const away = readFileSync(place.logFile);
    rmSync(place.logFile);
    const unnoted = await failureOf(clients.admin.revokeKey({ id: one.id, reason: 1 }));
    expect(unnoted).toMatchObject({ code: Code[Code.Unavailable], reason: 'STORE_UNAVAILABLE' });
    expect(unnoted?.text).toBe('REVOCATION_LOG cannot be written: the change may stand in the store already');
    expect(await decisionOf(clients, one.secret)).toBe('REVOKED');
    const mask = { updateMask: { paths: ['disabled'] } };
    const waits = clients.admin.updateKey({ key: { id: other.id, disabled: true }, ...mask });
    expect(await failureOf(waits)).toMatchObject({ reason: 'STORE_UNAVAILABLE' });
    expect(await decisionOf(clients, other.secret)).toBe('VALID');
    const metrics = await fetch(`http://127.0.0.1:${server.running.ports.metrics}/metrics`);
    expect(await metrics.text()).toMatch(/\napikeyd_revocation_log_failures_total [12]\n/);
    // The operator restores the file and restarts the process.
    await place.stop();
    writeFileSync(place.logFile, away);
    const again = await place.start();
    expect(again.log.join('')).toContain('noted in REVOCATION_LOG what a crash had kept from it');
    await place.drop();
  });

  it('that is missing is started again, and records the gap', async () => {
    const place = new Place('sqlite');
    await makeKey((await place.start()).clients('grpc'));
    await place.stop();
    rmSync(place.logFile);
    const { log } = await place.start();
    expect(log.join('')).toContain('REVOCATION_LOG begins: backups from before are not covered');
    await place.stop();
    expect((await place.start()).log.join('')).not.toContain('REVOCATION_LOG begins');
    await place.drop();
  });

  it('that was switched off for many changes has all of them after the next start', async () => {
    const place = new Place('sqlite');
    let clients = (await place.start()).clients('grpc');
    const keys = await Promise.all(Array.from({ length: 6 }, () => makeKey(clients)));
    await place.stop();
    const setBack = await place.copy();
    clients = (await place.start({ REVOCATION_LOG: 'off' })).clients('grpc');
    for (const { id } of keys) await clients.admin.revokeKey({ id, reason: 1 });
    // More changes than the store remembers.
    const imported = Array.from({ length: 1_000 }, (_, n) => ({
      ...{ name: 'n', ownerId: 'o', keyType: KeyType.SERVICE, scopes: ['a'] },
      keyHash: hashSecret(`${n}`),
    }));
    await clients.admin.importKeys({ keys: imported });
    await place.stop();
    await place.start();
    await place.stop();
    await setBack();
    clients = (await place.start()).clients('grpc');
    for (const { secret } of keys) expect(await decisionOf(clients, secret)).toBe('REVOKED');
    await place.drop();
  });

  it('is not written with "off", and no revocation waits for it', async () => {
    const place = new Place('sqlite');
    const clients = (await place.start({ REVOCATION_LOG: 'off' })).clients('grpc');
    const { id } = await makeKey(clients);
    await clients.admin.revokeKey({ id, reason: 1 });
    expect(existsSync(place.logFile)).toBe(false);
    await place.drop();
  });
});

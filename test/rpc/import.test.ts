// If this fails, people who move from another system lose keys, or get keys or scopes that nobody granted.
import { create } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { type ImportedKey, ImportedKeySchema } from '../../gen/apikey/v1/admin_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { hashSecret, mintSecret } from '../../src/keys/secret.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { at, decisionOf, failureOf, forEveryMount, limit, makeKey, onEachStore } from './cases.ts';

function imported(secret: string, fields: { [K in keyof ImportedKey]?: unknown } = {}): ImportedKey {
  return create(ImportedKeySchema, {
    name: 'moved',
    ownerId: 'old-system',
    keyType: KeyType.SERVICE,
    scopes: ['traces:read'],
    keyHash: hashSecret(secret),
    ...(fields as object),
  });
}

forEveryMount((mount) => {
  const { clock, clientsFor } = mount;
  const eventsOf = async (clients: Clients, keyId = '') => {
    const { events } = await clients.admin.listAuditEvents({
      method: 'apikey.v1.ApiKeyAdmin/ImportKeys',
      keyId,
    });
    return events.map(({ outcome, reason, keyId }) => ({ outcome, reason, keyId }));
  };

  it('imports keys with their scopes and limits, and their secrets keep working', async () => {
    const { clients } = mount;
    const [secret, other] = [mintSecret(), mintSecret()];
    const keys = [
      imported(secret, {
        rateLimits: [limit('m', 1)],
        ipAllowlist: ['192.0.2.0/24'],
        metadata: { from: 's0' },
      }),
      imported(other, { expireTime: at(clock.now() - 1) }),
    ];
    const { results } = await clients.admin.importKeys({ keys });
    expect(results).toMatchObject([{ existing: false }, { existing: false }]);
    const clientIp = '192.0.2.7';
    expect(await decisionOf(clients, secret, { requiredScope: 'traces:read', clientIp })).toBe('VALID');
    expect(await decisionOf(clients, secret, { clientIp })).toBe('RATE_LIMITED');
    expect(await decisionOf(clients, other)).toBe('EXPIRED');
    const id = results[0]?.id ?? '';
    const { key } = await clients.admin.getKey({ id });
    expect(key).toMatchObject({ name: 'moved', ownerId: 'old-system', metadata: { from: 's0' } });
    expect(key?.hint).toBe(`sha256:${hashSecret(secret).slice(0, 8)}…`);
    expect(await eventsOf(clients, id)).toEqual([{ outcome: 'OK', reason: '', keyId: id }]);
  });

  it('changes nothing when it is repeated, and imports only new keys', async () => {
    const { clients } = mount;
    const secrets = [mintSecret(), mintSecret(), mintSecret()];
    const keys = secrets.map((secret) => imported(secret));
    const first = await clients.admin.importKeys({ keys: keys.slice(0, 2) });
    const again = await clients.admin.importKeys({ keys: [...keys].reverse() });
    expect(again.results.map(({ existing }) => existing)).toEqual([false, true, true]);
    expect(
      again.results
        .slice(1)
        .map(({ id }) => id)
        .reverse(),
    ).toEqual(first.results.map(({ id }) => id));
    const { results } = await clients.admin.importKeys({ keys });
    expect(results.every(({ existing }) => existing)).toBe(true);
    expect((await eventsOf(clients))[0]).toEqual({ outcome: 'OK', reason: '', keyId: '' });
  });

  it('writes nothing when a key is invalid, and names each invalid key', async () => {
    const { clients } = mount;
    const good = mintSecret();
    const keys = [
      imported(good),
      imported(mintSecret(), { keyHash: 'ABC' }),
      imported(mintSecret(), { name: '', scopes: ['tra*'] }),
      imported(good),
    ];
    const { results } = await clients.admin.importKeys({ keys, validateOnly: true });
    expect(results.map(({ problems }) => problems.map((problem) => problem.split(':')[0]))).toEqual([
      [],
      ['key_hash'],
      ['name', 'scopes[0]'],
      ['key_hash'],
    ]);
    expect(await failureOf(clients.admin.importKeys({ keys }))).toMatchObject({
      code: 'InvalidArgument',
      fields: ['keys[1].key_hash', 'keys[2].name', 'keys[2].scopes[0]', 'keys[3].key_hash'],
    });
    expect(await decisionOf(clients, good)).toBe('NOT_FOUND');
    expect(await clients.admin.importKeys({ keys: keys.slice(0, 1), validateOnly: true })).toMatchObject({
      results: [{ id: '', existing: false, problems: [] }],
    });
    expect(await decisionOf(clients, good)).toBe('NOT_FOUND');
    expect((await eventsOf(clients))[0]).toMatchObject({ outcome: 'OK', reason: 'validate_only' });
    expect((await failureOf(clients.admin.importKeys({}))).fields).toEqual(['keys']);
  });

  it('refuses a secret that was retired by a rotation', async () => {
    const { clients } = mount;
    const { id, secret } = await makeKey(clients);
    await clients.admin.rotateKey({ id, mode: 2 });
    await clients.admin.completeRotation({ id });
    const keys = [imported(secret)];
    const { results } = await clients.admin.importKeys({ keys, validateOnly: true });
    expect(results[0]?.problems).toEqual([`key_hash: a retired secret of ${id}`]);
    expect((await failureOf(clients.admin.importKeys({ keys }))).fields).toEqual(['keys[0].key_hash']);
    expect(await decisionOf(clients, secret)).toBe('ROTATED');
  });

  it('grants no apikeys scope that the caller does not hold', async () => {
    const { clients } = mount;
    const { secret } = await makeKey(clients, { scopes: ['apikeys:admin'] });
    const admin = clientsFor(secret).admin;
    const keys = [imported(mintSecret(), { scopes: ['apikeys:audit'] })];
    expect((await failureOf(admin.importKeys({ keys }))).reason).toBe('SCOPE_NOT_HELD');
    const { results } = await admin.importKeys({ keys, validateOnly: true });
    expect(results[0]?.problems[0]).toMatch(/^scopes: /);
  });
});

onEachStore('secrets of other shapes, on %s', (kind) => {
  const database = freshDatabase(kind, inject('mongoUri'));
  const foreign = ['sk_live_0123456789', 'x', `${'ä'.repeat(500)} with blanks `, 'audit_v1_short'];
  let server: TestServer;
  let clients: Clients;
  const start = async (settings: Record<string, string>) => {
    server = await startServer(database.url, database.folder, settings);
    clients = server.clients('grpc');
  };
  beforeAll(async () => {
    await start({});
    await clients.admin.importKeys({ keys: foreign.map((secret) => imported(secret)) });
    const admin = imported('old-admin-secret', { scopes: ['apikeys:admin', 'apikeys:validate'] });
    await clients.admin.importKeys({ keys: [admin] });
  });
  afterAll(async () => {
    await server.stop();
    expect(await database.contents()).not.toContain('sk_live_0123456789');
    await database.drop();
  });

  it('are MALFORMED, also when imported, until ACCEPT_IMPORTED_SHAPES is set', async () => {
    for (const secret of foreign) expect(await decisionOf(clients, secret)).toBe('MALFORMED');
    expect((await failureOf(decisionOf(server.clients('grpc', 'old-admin-secret'), 'x'))).reason).toBe(
      'CREDENTIAL_INVALID',
    );
    await server.stop();
    await start({ ACCEPT_IMPORTED_SHAPES: 'true' });
    for (const secret of foreign) expect(await decisionOf(clients, secret), secret).toBe('VALID');
    expect(await decisionOf(server.clients('grpc', 'old-admin-secret'), 'x')).toBe('VALID');
    for (const unknown of ['sk_live_012345678', 'X', '', 'y'.repeat(1_025), ' sk_live_0123456789'])
      expect(await decisionOf(clients, unknown), unknown).toBe('MALFORMED');
    expect(await decisionOf(clients, mintSecret())).toBe('NOT_FOUND');
    const { key } = await clients.auth
      .revokeOwnKey({ key: 'x', reason: 1 })
      .then(async ({ keyId }) => clients.admin.getKey({ id: keyId }));
    expect(key?.status).toBe(4);
    expect(await decisionOf(clients, 'x')).toBe('REVOKED');
  });
});

// If this fails, keys of n8n are not seen, are taken for dead while they live, or others' keys for one's own.
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import { failureOf, onEachStore } from '../rpc/cases.ts';
import { N8nDouble } from '../support/n8n-double.ts';
import {
  type Clients,
  freshDatabase,
  type StoreKind,
  startServer,
  type TestServer,
} from '../support/server.ts';
import { type Login, n8n } from './driver.ts';

const PASSWORD = 'correct-horse-4711';
const { ALIVE, DEAD, UNKNOWN } = VerifyResult;

const VERSIONS = ['2.x', '1.x'] as const;

function n8nCases(version: (typeof VERSIONS)[number], kind: StoreKind): void {
  const database = freshDatabase(kind, inject('mongoUri'));
  const double = new N8nDouble(version);
  let server: TestServer;
  let clients: Clients;
  let login: Login = { name: '', password: PASSWORD };
  let owner: Login = login;
  let logins = 0;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { N8N_URL: await double.http.start() });
    clients = server.clients('grpc');
  });
  afterAll(async () => {
    await server.stop();
    await double.http.stop();
    await database.drop();
  });
  const newUser = (more: object = {}): Login => {
    const name = `user-${logins++}@example.com`;
    double.users.set(name, { id: `id-of-${name}`, password: PASSWORD, ...more });
    return { name, password: PASSWORD };
  };
  beforeEach(() => {
    double.publicApiIsOn = true;
    double.keys = [];
    login = newUser();
    owner = newUser({ owner: true });
  });
  const asking = () => ({ loginId: login.name, password: PASSWORD });

  it.each([13, 260])('a list has all of %s keys', async (count) => {
    const { key } = await n8n.create(clients, login, 'ci');
    const made = double.keys[0];
    for (let i = 1; i < count; i++)
      double.keys.unshift({ ...(made as NonNullable<typeof made>), id: `more-${i}`, label: `more ${i}` });
    const listed = await n8n.list(clients, login);
    expect(listed).toHaveLength(count);
    expect(listed.find(({ id }) => id === key.id)).toMatchObject({ difference: 0 });
  });

  it("an owner's list has only the owner's own keys", async () => {
    await n8n.create(clients, login, 'of the member');
    const { key } = await n8n.create(clients, owner, 'of the owner');
    expect((await n8n.list(clients, owner)).map(({ id }) => id)).toEqual([key.id]);
  });

  it.runIf(version === '2.x')(
    "an owner deletes a member's key, and the member's record is marked as deleted",
    async () => {
      const { key } = await n8n.create(clients, login, 'of the member');
      expect(await n8n.delete(clients, owner, key.id)).toMatchObject({
        key: { id: key.id, deleted: true },
        wasMissing: false,
      });
      expect(double.keys).toEqual([]);
      expect(await n8n.list(clients, login)).toEqual([]);
    },
  );

  it('a member cannot delete a key of another user', async () => {
    const { key } = await n8n.create(clients, owner, 'of the owner');
    expect((await failureOf(n8n.delete(clients, login, key.id))).reason).toBe('REMOTE_NOT_FOUND');
    expect(double.keys).toHaveLength(1);
    expect(await n8n.list(clients, owner)).toMatchObject([{ id: key.id, deleted: false }]);
  });

  it('a key that was rotated in n8n is marked, and can be deleted', async () => {
    const { key } = await n8n.create(clients, login, 'ci');
    const secret = double.rotate(key.id);
    expect(await n8n.list(clients, login)).toMatchObject([
      { id: key.id, difference: RemoteDifference.ROTATED_THERE, lastEight: secret.slice(-4) },
    ]);
    expect(await n8n.delete(clients, login, key.id)).toMatchObject({ key: { deleted: true } });
  });

  describe('while the public API is switched off', () => {
    it('a live key is not reported as DEAD, and no result is stored', async () => {
      const { secret } = await n8n.create(clients, login, 'ci');
      await n8n.verify(clients, secret);
      double.publicApiIsOn = false;
      for (const more of [{}, { login: asking() }]) {
        const { result, explanation } = await clients.integrations.verifyN8nApiKey({ secret, ...more });
        expect(result).toBe(UNKNOWN);
        expect(explanation).toContain('public API is switched off');
      }
      double.publicApiIsOn = true;
      expect(await n8n.list(clients, login)).toMatchObject([{ verified: ALIVE }]);
    });

    it('neither a list nor a delete marks a key as deleted', async () => {
      const { key } = await n8n.create(clients, login, 'ci');
      double.publicApiIsOn = false;
      for (const call of [() => n8n.list(clients, login), () => n8n.delete(clients, login, key.id)])
        expect((await failureOf(call())).text).toContain('N8N_PUBLIC_API_DISABLED');
      double.publicApiIsOn = true;
      expect(await n8n.list(clients, login)).toMatchObject([{ id: key.id, deleted: false, difference: 0 }]);
    });
  });

  it('a key that was deleted in n8n is DEAD, once a login can prove it', async () => {
    const { key, secret } = await n8n.create(clients, login, 'ci');
    double.keys = [];
    // 2.x answers alike when its public API is switched off; 1.x does not.
    const alone = version === '2.x' ? UNKNOWN : DEAD;
    expect(await n8n.verify(clients, secret)).toMatchObject({ result: alone });
    expect(await clients.integrations.verifyN8nApiKey({ secret, login: asking() })).toMatchObject({
      result: DEAD,
      apiKey: { id: key.id, lastVerifyResult: DEAD },
    });
  });

  it('an expired key, and one deleted through apikeyd, are DEAD without a login', async () => {
    const expired = `x.${Buffer.from('{"exp":1000000000}').toString('base64url')}.y`;
    expect(await n8n.verify(clients, expired)).toMatchObject({ result: DEAD });
    const { key, secret } = await n8n.create(clients, login, 'ci');
    await n8n.delete(clients, login, key.id);
    expect(await n8n.verify(clients, secret)).toMatchObject({ result: DEAD, key: { verified: DEAD } });
  });

  it('a label in use and an invalid label have different errors', async () => {
    await n8n.create(clients, login, 'ci');
    expect(await failureOf(n8n.create(clients, login, 'ci'))).toMatchObject({
      code: 'AlreadyExists',
      reason: 'REMOTE_EXISTS',
      text: expect.stringContaining('"ci"'),
    });
    const label = await failureOf(n8n.create(clients, login, 'a<b'));
    expect(label).toMatchObject({ reason: 'REMOTE_REFUSED', text: expect.stringContaining('no < or >') });
    const scope = await failureOf(n8n.create(clients, login, 'b', ['user:delete']));
    expect(scope).toMatchObject({ reason: 'REMOTE_REFUSED', text: expect.stringContaining('no such scope') });
  });

  it.runIf(version === '1.x')('a second key within one second is refused with that reason', async () => {
    const { second } = double;
    await n8n.create(clients, login, 'a');
    double.second = second;
    expect((await failureOf(n8n.create(clients, login, 'b'))).text).toContain('this very second');
  });

  it('a login that is no e-mail address is refused with that reason', async () => {
    const failure = await failureOf(n8n.list(clients, { ...login, name: 'alice' }));
    expect(failure).toMatchObject({ reason: 'REMOTE_UNAUTHENTICATED' });
    expect(failure.text).toContain('e-mail address');
  });

  it('an n8n that is starting is reported as unavailable, not as without keys', async () => {
    const { secret } = await n8n.create(clients, login, 'ci');
    double.isStarting = true;
    const failure = await failureOf(n8n.list(clients, login));
    const verified = await clients.integrations.verifyN8nApiKey({ secret });
    double.isStarting = false;
    expect(failure).toMatchObject({ code: 'Unavailable', reason: 'REMOTE_UNAVAILABLE' });
    expect(failure.text).toContain('starting');
    expect(verified).toMatchObject({ result: UNKNOWN, explanation: expect.stringContaining('starting') });
  });

  it('too many logins are reported with the wait that n8n asks for', async () => {
    for (let i = 0; i < 5; i++) await n8n.list(clients, login);
    const failure = await failureOf(n8n.list(clients, login));
    expect(failure).toMatchObject({ code: 'ResourceExhausted', reason: 'REMOTE_RATE_LIMITED' });
    expect(failure.text).toContain('42 s');
  });
}

for (const version of VERSIONS) onEachStore(`n8n ${version}, on %s`, (kind) => n8nCases(version, kind));

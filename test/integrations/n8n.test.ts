// If this fails, API keys of n8n are lost, leak, or live on when people believe that they are gone.
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import { N8n } from '../../src/integrations/n8n.ts';
import { Remote } from '../../src/integrations/remote.ts';
import { systemClock } from '../../src/server/serve.ts';
import { failureOf, onEachStore } from '../rpc/cases.ts';
import { N8nDouble } from '../support/n8n-double.ts';
import {
  type Clients,
  freshDatabase,
  type StoreKind,
  startServer,
  type TestServer,
} from '../support/server.ts';
import { addressesOf, expectHidden, n8n } from './driver.ts';
import { faultCases } from './faults.ts';
import { lifeCases } from './life.ts';
import { realCases } from './real.ts';

const PASSWORD = 'correct-horse-4711';
const VERSIONS = ['2.x', '1.x', 'old'] as const;

const keyCases = (version: (typeof VERSIONS)[number], kind: StoreKind) => {
  const database = freshDatabase(kind, inject('mongoUri'));
  const double = new N8nDouble(version);
  const secrets = [PASSWORD];
  let server: TestServer;
  let clients: Clients;
  let users = 0;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { N8N_URL: await double.http.start() });
    clients = server.clients('grpc');
  });
  afterAll(async () => {
    await server.stop();
    await double.http.stop();
    secrets.push(...double.keys.map(({ secret }) => secret).filter((secret) => secret.length > 40));
    const places = {
      log: server.log.join(''),
      store: await database.contents(),
      addresses: addressesOf(double.http),
    };
    expectHidden(secrets, places);
    await database.drop();
  });

  const freshLogin = () => {
    const name = `user-${users++}@example.com`;
    double.users.set(name, { id: `id-of-${name}`, password: PASSWORD });
    return { name, password: PASSWORD };
  };
  const create = async (...args: Parameters<typeof n8n.create>) => {
    const made = await n8n.create(...args);
    secrets.push(made.secret);
    return made;
  };

  lifeCases(n8n, () => ({ clients, login: freshLogin() }));
  faultCases(n8n, () => {
    const login = freshLogin();
    const names = () =>
      double.keys.filter(({ user }) => user === `id-of-${login.name}`).map(({ label }) => label);
    const forgetLogins = () => double.forgetLogins();
    // Before 2.0 the first request is for a path that does not exist.
    const beforeVerify = version === '2.x' ? 0 : 1;
    return { clients, login, double: double.http, names, forgetLogins, beforeVerify };
  });

  it('logs in, always sends an expiry, and uses one browser id throughout', async () => {
    const login = freshLogin();
    const before = double.http.seen.length;
    await create(clients, login, 'ci');
    const sent = double.http.seen.slice(before);
    expect(sent.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'POST /rest/login',
      'POST /rest/api-keys',
    ]);
    expect(sent[1]?.json).toEqual({ label: 'ci', scopes: n8n.scopes, expiresAt: null });
    expect(new Set(sent.map(({ headers }) => headers['browser-id'])).size).toBe(1);
    const expireTime = timestampFromDate(new Date(Math.ceil(Date.now() / 1000) * 1000 + 60_000));
    const n8nLogin = { loginId: login.name, password: PASSWORD };
    const made = await clients.integrations.createN8nApiKey({
      login: n8nLogin,
      label: 'soon',
      scopes: ['tag:list'],
      expireTime,
    });
    secrets.push(made.secret);
    expect(double.http.seen.at(-1)?.json).toMatchObject({ expiresAt: Number(expireTime.seconds) });
    expect(made.apiKey?.expireTime).toEqual(expireTime);
    const { apiKeys } = await clients.integrations.listN8nApiKeys({ login: n8nLogin });
    expect(apiKeys.find(({ label }) => label === 'soon')?.expireTime).toEqual(expireTime);
  });

  it('reports a refusal of n8n, and stores no row for it', async () => {
    const login = freshLogin();
    const failure = await failureOf(n8n.create(clients, login, 'ci', ['user:delete']));
    expect(failure).toMatchObject({ code: 'FailedPrecondition', reason: 'REMOTE_REFUSED' });
    expect(await n8n.list(clients, login)).toEqual([]);
  });

  it('refuses invalid requests before anything is sent', async () => {
    const before = double.http.seen.length;
    const { integrations } = clients;
    expect((await failureOf(integrations.createN8nApiKey({}))).fields).toEqual([
      'login.login_id',
      'login.password',
      'label',
      'scopes',
    ]);
    const login = { loginId: 'a', password: PASSWORD };
    const expireTime = timestampFromDate(new Date(Date.now() + 60_500));
    const wrong = {
      login,
      label: 'x'.repeat(51),
      scopes: ['workflow', 'a:b:c'],
      expireTime: { ...expireTime, nanos: 5e8 },
    };
    expect((await failureOf(integrations.createN8nApiKey(wrong))).fields).toEqual([
      'expire_time',
      'label',
      'scopes[0]',
      'scopes[1]',
    ]);
    expect(double.http.seen.length).toBe(before);
  });

  it('marks keys that only one side has', async () => {
    const login = freshLogin();
    const { key: gone } = await create(clients, login, 'gone');
    const { key: both } = await create(clients, login, 'both');
    const user = `id-of-${login.name}`;
    double.keys = double.keys.filter(({ id }) => id !== gone.id);
    double.keys.push({
      id: 'theirs',
      user,
      secret: 'x',
      label: 'by hand',
      scopes: ['tag:list'],
      expiresAt: null,
    });
    const listed = await n8n.list(clients, login);
    expect(listed.map(({ id, difference }) => [id, difference])).toEqual([
      [both.id, RemoteDifference.UNSPECIFIED],
      ['theirs', RemoteDifference.REMOTE_ONLY],
      [gone.id, RemoteDifference.LOCAL_ONLY],
    ]);
  });

  it('marks a key that is missing in n8n as deleted', async () => {
    const login = freshLogin();
    const { key } = await create(clients, login, 'gone');
    double.keys = double.keys.filter(({ id }) => id !== key.id);
    const deleted = await n8n.delete(clients, login, key.id);
    expect(deleted).toMatchObject({ key: { deleted: true }, wasMissing: true });
    expect(await n8n.list(clients, login)).toEqual([]);
  });

  it('recognises a key that may not list workflows as alive', async () => {
    const { secret } = await create(clients, freshLogin(), 'narrow', ['tag:list']);
    expect(await n8n.verify(clients, secret)).toMatchObject({ result: VerifyResult.ALIVE });
  });

  it('reports when to retry after too many logins, and sends a second factor', async () => {
    const login = freshLogin();
    double.users.set(login.name, { id: 'id', password: PASSWORD, mfaCode: '424242' });
    expect((await failureOf(n8n.list(clients, login))).reason).toBe('REMOTE_UNAUTHENTICATED');
    expect(await n8n.list(clients, { ...login, otp: '424242' })).toEqual([]);
    for (let i = 0; i < 3; i++) await n8n.list(clients, { ...login, otp: '424242' });
    const failure = await failureOf(n8n.list(clients, { ...login, otp: '424242' }));
    expect(failure).toMatchObject({ code: 'ResourceExhausted', reason: 'REMOTE_RATE_LIMITED' });
  });
};

for (const version of VERSIONS)
  onEachStore(`API keys of n8n ${version}, on %s`, (kind) => keyCases(version, kind));

describe('API keys of n8n', () => {
  it('are switched off, and send nothing, until N8N_URL is set', async () => {
    const database = freshDatabase('sqlite', '');
    const server = await startServer(database.url, database.folder);
    const failure = await failureOf(n8n.list(server.clients('grpc'), { name: 'a', password: 'b' }));
    expect(failure).toMatchObject({
      code: 'FailedPrecondition',
      reason: 'INTEGRATION_OFF',
      text: expect.stringContaining('N8N_URL'),
    });
    await server.stop();
    await database.drop();
  });

  it('have a time limit', async () => {
    const double = new N8nDouble('2.x');
    const url = await double.http.start();
    double.http.fail('silent');
    const system = new N8n(new Remote('n8n', url, 50), systemClock);
    const list = system.open({ name: 'a@b.c', password: 'b', oneTimePassword: '' });
    await expect(list).rejects.toMatchObject({
      code: 'REMOTE_TIMEOUT',
      message: expect.stringContaining('n8n'),
    });
    await double.http.stop();
  });
});

realCases(n8n, { url: 'N8N_URL', name: 'N8N_LOGIN_ID', password: 'N8N_PASSWORD', otp: 'N8N_MFA_CODE' });

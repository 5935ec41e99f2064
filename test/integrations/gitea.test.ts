// If this fails, tokens of Gitea are lost, leak, or live on when people believe that they are gone.
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import { Gitea } from '../../src/integrations/gitea.ts';
import { Remote } from '../../src/integrations/remote.ts';
import { ManageRemoteKeys } from '../../src/keys/manage-remote-keys.ts';
import type { RemoteKeyLog } from '../../src/keys/remote-keys.ts';
import { systemClock } from '../../src/server/serve.ts';
import { failureOf, makeKey, onEachStore } from '../rpc/cases.ts';
import { GiteaDouble } from '../support/gitea-double.ts';
import { ORIGIN } from '../support/keys.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { addressesOf, expectHidden, gitea } from './driver.ts';
import { faultCases } from './faults.ts';
import { lifeCases } from './life.ts';
import { realCases } from './real.ts';

const PASSWORD = 'correct-horse-4711';
const { REMOTE_ONLY, LOCAL_ONLY } = RemoteDifference;

onEachStore('tokens of Gitea, on %s', (kind) => {
  const database = freshDatabase(kind, inject('mongoUri'));
  const double = new GiteaDouble();
  const secrets = [PASSWORD];
  let server: TestServer;
  let clients: Clients;
  let users = 0;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { GITEA_URL: `${await double.http.start()}/` });
    clients = server.clients('grpc');
    double.users.set('root', { password: PASSWORD, admin: true });
  });
  afterAll(async () => {
    await server.stop();
    await double.http.stop();
    secrets.push(...double.tokens.map(({ sha1 }) => sha1).filter((sha1) => sha1.length === 40));
    const places = {
      log: server.log.join(''),
      store: await database.contents(),
      addresses: addressesOf(double.http),
    };
    expectHidden(secrets, places);
    await database.drop();
  });

  const freshLogin = () => {
    const name = `user-${users++}`;
    double.users.set(name, { password: PASSWORD });
    return { name, password: PASSWORD };
  };
  const create = async (...args: Parameters<typeof gitea.create>) => {
    const made = await gitea.create(...args);
    secrets.push(made.secret);
    return made;
  };
  const eventsOf = async (method: string) => {
    const { events } = await clients.admin.listAuditEvents({
      method: `apikey.v1.ApiKeyIntegrations/${method}`,
    });
    return events.map(({ outcome, reason }) => [outcome, reason]);
  };

  lifeCases(gitea, () => ({ clients, login: freshLogin() }));
  faultCases(gitea, () => {
    const login = freshLogin();
    const names = () => double.tokens.filter(({ user }) => user === login.name).map(({ name }) => name);
    return { clients, login, double: double.http, names };
  });

  it('sends one POST with a password, and stores the scopes as Gitea returned them', async () => {
    const login = freshLogin();
    const before = double.http.seen.length;
    const { key } = await create(clients, login, 'ci', ['write:user', 'read:user', 'read:issue']);
    const sent = double.http.seen.slice(before);
    expect(sent.map(({ method, path }) => `${method} ${path}`)).toEqual([
      `GET /api/v1/users/${login.name}`,
      `POST /api/v1/users/${login.name}/tokens`,
    ]);
    expect(sent[1]?.headers.authorization).toMatch(/^Basic /);
    expect([...key.scopes].sort()).toEqual(['read:issue', 'write:user']);
    expect((await eventsOf('CreateGiteaToken'))[0]).toEqual(['OK', `created ${key.id}`]);
  });

  it('reports a refusal of Gitea, and stores no row for it', async () => {
    const login = freshLogin();
    await create(clients, login, 'ci');
    const failure = await failureOf(gitea.create(clients, login, 'other', ['read:unknown']));
    expect(failure).toMatchObject({ code: 'FailedPrecondition', reason: 'REMOTE_REFUSED' });
    expect(await gitea.list(clients, login)).toHaveLength(1);
    expect((await eventsOf('CreateGiteaToken'))[0]).toEqual(['FAILED_PRECONDITION', 'REMOTE_REFUSED']);
  });

  it('refuses invalid requests before anything is sent', async () => {
    const before = double.http.seen.length;
    const { integrations } = clients;
    expect(await failureOf(integrations.createGiteaToken({}))).toMatchObject({
      code: 'InvalidArgument',
      fields: ['login.username', 'login.password', 'name', 'scopes'],
    });
    const login = { username: 'a:b', password: PASSWORD, otp: 'a b' };
    const bad = integrations.createGiteaToken({ login, name: 'x'.repeat(256), scopes: ['ALL', 'read:*'] });
    expect((await failureOf(bad)).fields).toEqual([
      'login.username',
      'login.otp',
      'name',
      'scopes[0]',
      'scopes[1]',
    ]);
    for (const secret of ['', 'a b', 'a\nb', 'x'.repeat(1025)])
      expect((await failureOf(integrations.verifyGiteaToken({ secret }))).fields).toEqual(['secret']);
    expect(double.http.seen.length).toBe(before);
  });

  it('lists every page, and marks tokens that only one side has', async () => {
    const login = freshLogin();
    const { key: gone } = await create(clients, login, 'gone');
    const { key: both } = await create(clients, login, 'both');
    const row = (id: number) => ({
      id: 10_000 + id,
      user: login.name,
      name: `t${id}`,
      sha1: `${id}`,
      scopes: ['all'],
    });
    double.tokens = [
      ...Array.from({ length: 119 }, (_, i) => row(i)),
      ...double.tokens.filter(({ id }) => String(id) !== gone.id),
    ];
    const before = double.http.seen.length;
    const listed = await gitea.list(clients, login);
    // The user, and three pages.
    expect(double.http.seen.length - before).toBe(4);
    expect(listed).toHaveLength(121);
    expect(listed.filter(({ difference }) => difference === REMOTE_ONLY)).toHaveLength(119);
    expect(listed.find(({ id }) => id === both.id)?.difference).toBe(RemoteDifference.UNSPECIFIED);
    expect(listed.at(-1)).toMatchObject({ id: gone.id, difference: LOCAL_ONLY, deleted: false });
  });

  it('deletes a token by its name; one that is missing in Gitea is marked as deleted and reported', async () => {
    const login = freshLogin();
    const { key: named } = await create(clients, login, 'by name');
    expect(await gitea.delete(clients, login, 'by name')).toMatchObject({
      key: { id: named.id, deleted: true },
      wasMissing: false,
    });
    const { key: gone } = await create(clients, login, 'gone');
    double.tokens = double.tokens.filter(({ id }) => String(id) !== gone.id);
    expect(await gitea.delete(clients, login, gone.id)).toMatchObject({
      key: { id: gone.id, deleted: true },
      wasMissing: true,
    });
    expect((await eventsOf('DeleteGiteaToken'))[0]).toEqual(['OK', `deleted ${gone.id}, which was gone`]);
    expect(await gitea.list(clients, login)).toEqual([]);
    expect(await failureOf(gitea.delete(clients, login, 'never was'))).toMatchObject({
      code: 'NotFound',
      reason: 'REMOTE_NOT_FOUND',
    });
    // Somebody else's token is not this user's to settle.
    const other = freshLogin();
    const { key: theirs } = await create(clients, other, 'theirs');
    expect((await failureOf(gitea.delete(clients, login, theirs.id))).reason).toBe('REMOTE_NOT_FOUND');
    expect(await gitea.list(clients, other)).toMatchObject([{ id: theirs.id, deleted: false }]);
  });

  it('refuses to choose between tokens of one name', async () => {
    const login = freshLogin();
    const token = { user: login.name, name: 'twin', sha1: 'x', scopes: ['all'] };
    double.tokens.push({ id: 20_001, ...token }, { id: 20_002, ...token });
    const failure = await failureOf(gitea.delete(clients, login, 'twin'));
    expect(failure).toMatchObject({
      reason: 'REMOTE_AMBIGUOUS',
      text: expect.stringMatching(/20001.*20002/),
    });
  });

  it('recognises a token without read:user as alive', async () => {
    const { secret } = await create(clients, freshLogin(), 'narrow', ['read:issue']);
    expect(await gitea.verify(clients, secret)).toMatchObject({ result: VerifyResult.ALIVE });
    expect(await gitea.verify(clients, '0'.repeat(40))).toEqual({
      result: VerifyResult.DEAD,
      key: undefined,
    });
  });

  it('acts for another user when the login is a site admin, and sends a second factor', async () => {
    const { name } = freshLogin();
    const login = { username: 'root', password: PASSWORD };
    const made = await clients.integrations.createGiteaToken({
      login,
      user: name.toUpperCase(),
      name: 'by root',
      scopes: ['all'],
    });
    secrets.push(made.secret);
    expect(made.token).toMatchObject({ user: name });
    const own = { username: name, password: PASSWORD };
    expect((await failureOf(clients.integrations.listGiteaTokens({ login: own, user: 'root' }))).reason).toBe(
      'REMOTE_REFUSED',
    );
    double.users.set('careful', { password: PASSWORD, otp: '424242' });
    const careful = { name: 'careful', password: PASSWORD };
    expect((await failureOf(gitea.list(clients, careful))).reason).toBe('REMOTE_UNAUTHENTICATED');
    expect(await gitea.list(clients, { ...careful, otp: '424242' })).toEqual([]);
  });

  it('requires the scope apikeys:admin', async () => {
    const { secret } = await makeKey(clients, { scopes: ['apikeys:audit', 'apikeys:validate'] });
    const auditor = server.clients('grpc', secret);
    const before = double.http.seen.length;
    expect((await failureOf(gitea.list(auditor, freshLogin()))).reason).toBe('SCOPE_MISSING');
    expect(double.http.seen.length).toBe(before);
  });
});

describe('tokens of Gitea', () => {
  it('are switched off, and send nothing, until GITEA_URL is set', async () => {
    const database = freshDatabase('sqlite', '');
    const server = await startServer(database.url, database.folder);
    for (const call of [
      () => gitea.list(server.clients('grpc'), { name: 'a', password: 'b' }),
      () => gitea.verify(server.clients('grpc'), 'x'),
    ])
      expect(await failureOf(call())).toMatchObject({
        code: 'FailedPrecondition',
        reason: 'INTEGRATION_OFF',
        text: expect.stringContaining('GITEA_URL'),
      });
    await server.stop();
    await database.drop();
  });

  const withDouble = async (run: (double: GiteaDouble, url: string) => Promise<void>) => {
    const double = new GiteaDouble();
    double.users.set('alice', { password: PASSWORD });
    try {
      await run(double, await double.http.start());
    } finally {
      await double.http.stop();
    }
  };
  const login = { name: 'alice', password: PASSWORD, oneTimePassword: '' };

  it('have a time limit', () =>
    withDouble(async (double, url) => {
      double.http.fail('silent');
      const list = new Gitea(new Remote('Gitea', url, 50)).open(login).then((session) => session.list(''));
      await expect(list).rejects.toMatchObject({
        code: 'REMOTE_TIMEOUT',
        message: expect.stringContaining('Gitea'),
      });
    }));

  it('are deleted in Gitea when they cannot be recorded, and reported as remaining when that fails', () =>
    withDouble(async (double, url) => {
      const away = new Error('the store is away');
      const log = { put: () => Promise.reject(away) } as unknown as RemoteKeyLog;
      const system = new Gitea(new Remote('Gitea', url, 1_000));
      const manage = new ManageRemoteKeys({ system, setting: 'GITEA_URL', log, clock: systemClock });
      const key = { user: '', name: 'ci', scopes: ['all'] };
      await expect(manage.create(login, key, ORIGIN)).rejects.toBe(away);
      expect(double.tokens).toEqual([]);
      double.http.fail('500', 2);
      await expect(manage.create(login, key, ORIGIN)).rejects.toMatchObject({
        code: 'STORE_UNAVAILABLE',
        message: expect.stringContaining('made there as 1002'),
      });
      expect(double.tokens).toHaveLength(1);
    }));
});

realCases(gitea, { url: 'GITEA_URL', name: 'GITEA_USERNAME', password: 'GITEA_PASSWORD', otp: 'GITEA_OTP' });

// If this fails, the wrong token is deleted in Gitea, a live token is marked as deleted, or a dead one as alive.
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import { Remote } from '../../src/integrations/remote.ts';
import { failureOf, onEachStore } from '../rpc/cases.ts';
import { GiteaDouble } from '../support/gitea-double.ts';
import { freePort } from '../support/process.ts';
import {
  type Clients,
  freshDatabase,
  type StoreKind,
  startServer,
  type TestServer,
} from '../support/server.ts';
import { gitea, type Login } from './driver.ts';

const PASSWORD = 'correct-horse-4711';

const VERSIONS = ['1.26', '1.27'] as const;

function giteaCases(version: (typeof VERSIONS)[number], kind: StoreKind): void {
  const database = freshDatabase(kind, inject('mongoUri'));
  const double = new GiteaDouble(version);
  let server: TestServer;
  let clients: Clients;
  let login: Login = { name: '', password: PASSWORD };
  let logins = 0;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { GITEA_URL: await double.http.start() });
    clients = server.clients('grpc');
    double.users.set('root', { password: PASSWORD, admin: true });
  });
  afterAll(async () => {
    await server.stop();
    await double.http.stop();
    await database.drop();
  });
  beforeEach(() => {
    double.tokens = [];
    login = { name: `user-${logins++}`, password: PASSWORD };
    double.users.set(login.name, { password: PASSWORD, email: `${login.name}@example.com` });
  });
  const user = (more: object) => double.users.set(login.name, { password: PASSWORD, ...more });
  const add = (id: number, name: string) =>
    double.tokens.unshift({
      id,
      user: login.name,
      name,
      sha1: String(id).padStart(40, 'a'),
      scopes: ['all'],
    });
  const names = () => double.tokens.filter((token) => token.user === login.name).map(({ name }) => name);
  const remove = (id: string) => {
    double.tokens = double.tokens.filter((token) => String(token.id) !== id);
  };
  const asking = (more: object = {}) => ({ login: { username: login.name, password: PASSWORD }, ...more });

  describe('a text that is a number but no id', () => {
    it.each(['010', '0x8', '0b1000', '0o10', '0_10', '+8', '-8', '8_0', '99999999999999999999', ' 8'])(
      'delete %s ends no token of another name',
      async (asked) => {
        for (const id of [8, 10, 80]) add(id, `number ${id}`);
        expect((await failureOf(gitea.delete(clients, login, asked))).reason).toBe('REMOTE_NOT_FOUND');
        expect(names()).toHaveLength(3);
        for (const id of ['8', '10', '80']) remove(id);
      },
    );

    it.each(['2024', '010', '0x3', '.', '..', 'a/b', '-5', '1_0'])(
      'delete %s ends the token of that name',
      async (name) => {
        add(3, 'other');
        const { key } = await gitea.create(clients, login, name);
        expect(await gitea.delete(clients, login, name)).toMatchObject({
          key: { id: key.id, deleted: true },
          wasMissing: false,
        });
        expect(names()).toEqual(['other']);
        const sent = double.http.seen.filter(({ method }) => method === 'DELETE').at(-1);
        expect(sent?.path).toBe(`/api/v1/users/${login.name}/tokens/${key.id}`);
        remove('3');
      },
    );

    it('refuses to choose between the id of one token and the name of another', async () => {
      add(501, 'first');
      add(502, '501');
      const failure = await failureOf(gitea.delete(clients, login, '501'));
      expect(failure).toMatchObject({ code: 'FailedPrecondition', reason: 'REMOTE_AMBIGUOUS' });
      for (const word of ['501 ("first")', '502 ("501")']) expect(failure.text).toContain(word);
      expect(names()).toHaveLength(2);
      remove('501');
      remove('502');
    });
  });

  it.each(['private', 'limited'] as const)(
    'a token of a %s user lives on when Gitea answers that there is nothing',
    async (visibility) => {
      const { key } = await gitea.create(clients, login, 'ci');
      user({ visibility });
      double.basicIsOn = false;
      const failure = await failureOf(gitea.delete(clients, login, key.id));
      double.basicIsOn = true;
      expect(failure).toMatchObject({ code: 'NotFound', reason: 'REMOTE_NOT_FOUND' });
      expect(failure.text).toContain('basic authentication');
      expect(await gitea.list(clients, login)).toMatchObject([{ id: key.id, deleted: false, difference: 0 }]);
    },
  );

  it('a token of a private user is not marked as deleted when the login may not see that user', async () => {
    const { key } = await gitea.create(clients, login, 'ci');
    const whose = login.name;
    user({ visibility: 'private' });
    double.users.set('stranger', { password: PASSWORD });
    const stranger = { login: { username: 'stranger', password: PASSWORD }, user: whose, token: key.id };
    expect((await failureOf(clients.integrations.deleteGiteaToken(stranger))).code).toBe('NotFound');
    expect(await gitea.list(clients, login)).toMatchObject([{ id: key.id, deleted: false, difference: 0 }]);
  });

  it('the next list corrects a token that was wrongly marked as deleted', async () => {
    const { key } = await gitea.create(clients, login, 'ci');
    const kept = double.tokens;
    remove(key.id);
    expect(await gitea.delete(clients, login, key.id)).toMatchObject({ wasMissing: true });
    double.tokens = kept;
    expect(await gitea.list(clients, login)).toMatchObject([{ id: key.id, deleted: false, difference: 0 }]);
    remove(key.id);
    expect(await gitea.list(clients, login)).toMatchObject([
      { id: key.id, deleted: false, difference: RemoteDifference.LOCAL_ONLY },
    ]);
    const { events } = await clients.admin.listAuditEvents({
      method: 'apikey.v1.ApiKeyIntegrations/ListGiteaTokens',
    });
    expect(events.map(({ reason }) => reason)).toContain(`${key.id} is not deleted`);
  });

  it('a reused id is not mistaken for the deleted token', async () => {
    const { key } = await gitea.create(clients, login, 'ci');
    await gitea.delete(clients, login, key.id);
    add(Number(key.id), 'by hand');
    expect(await gitea.list(clients, login)).toMatchObject([
      { id: key.id, name: 'by hand', difference: RemoteDifference.REMOTE_ONLY },
    ]);
  });

  it('a list of several pages has every token, also when tokens of one second span two pages', async () => {
    for (let i = 0; i < 60; i++) add(3_000 + i, `t${i}`);
    double.overlapsAt = 50;
    const listed = await gitea.list(clients, login);
    double.overlapsAt = undefined;
    expect(new Set(listed.map(({ id }) => id)).size).toBe(60);
    double.tokens = [];
  });

  describe('a second factor', () => {
    const withOtp = (otp: string) => ({ ...login, otp });

    it('needs a one-time password per page, and says so before using one twice', async () => {
      for (let i = 0; i < 60; i++) add(4_000 + i, `t${i}`);
      user({ otp: ['111111', '222222'] });
      const before = double.http.seen.length;
      const failure = await failureOf(gitea.list(clients, withOtp('111111')));
      expect(failure).toMatchObject({ reason: 'REMOTE_UNAUTHENTICATED' });
      expect(failure.text).toContain('several with commas');
      const sent = double.http.seen.slice(before).map(({ headers }) => headers['x-gitea-otp']);
      expect(sent.filter((code) => code === '111111')).toHaveLength(1);
      user({ otp: ['333333', '444444'] });
      expect(await gitea.list(clients, withOtp('333333,444444'))).toHaveLength(60);
      double.tokens = [];
    });

    it('needs two one-time passwords for a delete, and one for a list of one page', async () => {
      user({ otp: ['1', '2', '3'] });
      const { key } = await gitea.create(clients, withOtp('1'), 'ci');
      expect(await gitea.list(clients, withOtp('2'))).toMatchObject([{ id: key.id }]);
      expect((await failureOf(gitea.delete(clients, withOtp('3'), key.id))).reason).toBe(
        'REMOTE_UNAUTHENTICATED',
      );
      expect(await gitea.delete(clients, withOtp('2,3'), key.id)).toMatchObject({ wasMissing: false });
    });

    it('is not needed when the password is a token of write:user', async () => {
      const { secret } = await gitea.create(clients, login, 'manager', ['all']);
      user({ otp: '1' });
      expect(await gitea.list(clients, { ...login, password: secret })).toHaveLength(1);
    });
  });

  it.each([
    ['blocked', 'blocked'],
    ['inactive', 'not active'],
    ['mustChangePassword', 'change the password'],
  ] as const)('verify says that a token whose owner is %s cannot be used', async (state, word) => {
    const { secret } = await gitea.create(clients, login, 'ci', ['read:issue']);
    expect(await gitea.verify(clients, secret)).toMatchObject({ result: VerifyResult.ALIVE });
    user({ [state]: true });
    const { result, explanation } = await clients.integrations.verifyGiteaToken({ secret });
    expect(result).toBe(VerifyResult.UNUSABLE);
    expect(explanation).toContain(word);
    user({});
    expect(await gitea.list(clients, login)).toMatchObject([{ verified: VerifyResult.UNUSABLE }]);
  });

  it('verify says DEAD for a deleted token when Gitea requires sign-in to view', async () => {
    double.strangersSeeNothing = true;
    const verified = await gitea.verify(clients, '0'.repeat(40));
    double.strangersSeeNothing = false;
    expect(verified.result).toBe(VerifyResult.DEAD);
  });

  describe('a refusal names its cause', () => {
    const textOf = async (call: Promise<unknown>) => (await failureOf(call)).text;

    it('when basic authentication is switched off', async () => {
      double.basicIsOn = false;
      const text = await textOf(gitea.list(clients, login));
      double.basicIsOn = true;
      expect(text).toContain('basic authentication is switched off');
      expect(text).not.toContain('admin of the site');
    });

    it('when the login is no site admin', async () => {
      const text = await textOf(clients.integrations.listGiteaTokens(asking({ user: 'root' })));
      expect(text).toContain('only an admin of the site');
    });

    it.each([
      ['inactive', 'not active'],
      ['mustChangePassword', 'change the password'],
    ] as const)('where the user is %s', async (state, word) => {
      user({ [state]: true });
      expect(await textOf(gitea.list(clients, login))).toContain(word);
    });

    it('when the password is a token with too few scopes', async () => {
      const { secret } = await gitea.create(clients, login, 'ci', ['read:issue']);
      expect(await textOf(gitea.list(clients, { ...login, password: secret }))).toContain('write:user');
    });

    it.runIf(version === '1.27')('when a token may not create one with more scopes', async () => {
      const { secret } = await gitea.create(clients, login, 'ci', ['write:user']);
      const text = await textOf(gitea.create(clients, { ...login, password: secret }, 'more', ['all']));
      expect(text).toContain('more scopes than its own');
    });

    it('when the name is in use, and when the scope is unknown', async () => {
      await gitea.create(clients, login, 'ci');
      expect(await failureOf(gitea.create(clients, login, 'ci'))).toMatchObject({
        code: 'AlreadyExists',
        reason: 'REMOTE_EXISTS',
      });
      const failure = await failureOf(gitea.create(clients, login, 'other', ['read:unknown']));
      expect(failure).toMatchObject({ reason: 'REMOTE_REFUSED' });
      expect(failure.text).toContain('no such scope');
    });
  });

  it.each(['a@example.com', '.', '..', 'a/b', 'a b', 'a:b'])(
    'a login %s is refused before anything is sent',
    async (username) => {
      const before = double.http.seen.length;
      const bad = { login: { username, password: PASSWORD } };
      expect((await failureOf(clients.integrations.listGiteaTokens(bad))).fields).toEqual(['login.username']);
      const other = { ...asking(), user: username };
      expect((await failureOf(clients.integrations.listGiteaTokens(other))).fields).toEqual(['user']);
      expect(double.http.seen.length).toBe(before);
    },
  );

  it('a renamed user keeps the records, under the new name', async () => {
    const { key: alive } = await gitea.create(clients, login, 'alive');
    const { key: gone } = await gitea.create(clients, login, 'gone');
    const newName = `new-${login.name}`;
    const id = 7_000 + logins;
    user({ id });
    await gitea.list(clients, login);
    double.users.delete(login.name);
    double.users.set(newName, { password: PASSWORD, id });
    double.renamed.set(login.name, newName);
    double.tokens = double.tokens
      .filter((token) => String(token.id) !== gone.id)
      .map((token) => (String(token.id) === alive.id ? { ...token, user: newName } : token));
    expect((await failureOf(gitea.list(clients, login))).text).toContain(`the name is ${newName} now`);
    const listed = await gitea.list(clients, { ...login, name: newName });
    expect(listed.map((each) => [each.id, each.difference])).toEqual([
      [alive.id, 0],
      [gone.id, RemoteDifference.LOCAL_ONLY],
    ]);
  });
}

for (const version of VERSIONS) onEachStore(`Gitea ${version}, on %s`, (kind) => giteaCases(version, kind));

it('says that nothing was done when no connection was made', async () => {
  const remote = new Remote('Gitea', `http://127.0.0.1:${await freePort()}`);
  const call = remote.request('POST', '/api/v1/users/alice/tokens', { makes: true });
  await expect(call).rejects.toMatchObject({
    code: 'REMOTE_UNAVAILABLE',
    message: 'Gitea cannot be reached: nothing listens there',
    facts: { retryAfterMs: 5_000 },
  });
});

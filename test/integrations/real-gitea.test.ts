// If this fails, the doubles still agree with us, but the real Gitea does not.
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import { failureOf } from '../rpc/cases.ts';
import { requires } from '../support/requires.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { expectHidden, gitea, type Login } from './driver.ts';
import { lifeCases } from './life.ts';

const SCRIPT = new URL('../support/gitea.sh', import.meta.url).pathname;
const PASSWORD = 'correct-horse-4711';
const { ALIVE, DEAD, UNUSABLE } = VerifyResult;

/** No registry has it: GITEA_BIN names the program, for `npm run test:long`. */
const asked = Boolean(process.env.LONG && process.env.GITEA_BIN);
if (process.env.LONG && !asked) process.stderr.write('No real Gitea here: GITEA_BIN names no program\n');

function realGitea(): void {
  const database = freshDatabase('sqlite', '');
  const secrets = [PASSWORD];
  let url = '';
  let server: TestServer;
  let clients: Clients;
  let users = 0;
  const script = (...args: string[]) =>
    execFileSync('bash', [SCRIPT, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      encoding: 'utf8',
    }).trim();
  beforeAll(async () => {
    script('down');
    url = script('up');
    const root = ['--username', 'boss', '--password', PASSWORD, '--email', 'boss@example.com'];
    script('admin', 'user', 'create', '--admin', '--must-change-password=false', ...root);
    server = await startServer(database.url, database.folder, { GITEA_URL: url });
    clients = server.clients('grpc');
  });
  afterAll(async () => {
    await server.stop();
    expectHidden(secrets, { log: server.log.join(''), store: await database.contents() });
    await database.drop();
    script('down');
  });

  /** A call of Gitea's admin interface, or of a user's own. */
  const there = async (method: string, path: string, body: object, name = 'boss') => {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: {
        'content-type': 'application/json',
        authorization: `Basic ${Buffer.from(`${name}:${PASSWORD}`).toString('base64')}`,
      },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === '' ? {} : JSON.parse(text);
  };
  const newUser = async (more: object = {}): Promise<Login> => {
    const username = `user-${users++}`;
    const user = { username, email: `${username}@example.com`, password: PASSWORD };
    await there('POST', '/admin/users', { ...user, must_change_password: false, ...more });
    return { name: username, password: PASSWORD };
  };
  const change = ({ name }: Login, more: object) =>
    there('PATCH', `/admin/users/${name}`, { login_name: name, source_id: 0, ...more });
  const create = async (...args: Parameters<typeof gitea.create>) => {
    const made = await gitea.create(...args);
    secrets.push(made.secret);
    return made;
  };
  const textOf = async (call: Promise<unknown>) => (await failureOf(call)).text;

  let fresh: Login;
  describe('a life', () => {
    beforeAll(async () => {
      fresh = await newUser();
    });
    lifeCases(gitea, () => ({ clients, login: fresh }));
  });

  it('deletes by a number that is no id only the token of that name', async () => {
    const login = await newUser();
    const ids = [];
    for (let i = 0; i < 12; i++) ids.push(Number((await create(clients, login, `t${i}`)).key.id));
    const id = ids[5] ?? 0;
    for (const asking of [
      `0${id.toString(8)}`,
      `0x${id.toString(16)}`,
      `+${id}`,
      `-${id}`,
      `0b${id.toString(2)}`,
    ]) {
      expect((await failureOf(gitea.delete(clients, login, asking))).reason).toBe('REMOTE_NOT_FOUND');
      await create(clients, login, asking);
      expect(await gitea.delete(clients, login, asking)).toMatchObject({
        key: { name: asking, deleted: true },
      });
    }
    for (const name of ['.', '..', 'a/b', String(id)]) await create(clients, login, name);
    expect(await failureOf(gitea.delete(clients, login, String(id)))).toMatchObject({
      reason: 'REMOTE_AMBIGUOUS',
    });
    for (const name of ['.', '..', 'a/b'])
      expect(await gitea.delete(clients, login, name)).toMatchObject({ key: { name, deleted: true } });
    expect(await gitea.list(clients, login)).toHaveLength(13);
  });

  it('lists 120 tokens of few seconds, each once', async () => {
    const login = await newUser();
    for (let i = 0; i < 120; i++)
      await there('POST', `/users/${login.name}/tokens`, { name: `t${i}`, scopes: ['all'] }, login.name);
    const listed = await gitea.list(clients, login);
    expect(new Set(listed.map(({ id }) => id)).size).toBe(120);
    expect(listed).toHaveLength(120);
  });

  it('verifies the tokens of an owner who is blocked, not active or due to change the password', async () => {
    for (const [state, back, word] of [
      [{ prohibit_login: true }, { prohibit_login: false }, 'blocked'],
      [{ active: false }, { active: true }, ''],
      [{ must_change_password: true, password: PASSWORD }, {}, 'change the password'],
    ] as const) {
      const login = await newUser();
      const { secret } = await create(clients, login, 'ci', ['read:issue']);
      expect((await gitea.verify(clients, secret)).result).toBe(ALIVE);
      await change(login, state);
      const { result, explanation } = await clients.integrations.verifyGiteaToken({ secret });
      expect([state, result]).toEqual([state, UNUSABLE]);
      expect(explanation).toContain(word);
      await change(login, back);
    }
  });

  it('reports a name in use and an unknown scope as different errors', async () => {
    const login = await newUser();
    const { secret } = await create(clients, login, 'ci', ['read:issue']);
    expect((await failureOf(gitea.create(clients, login, 'ci'))).reason).toBe('REMOTE_EXISTS');
    expect(await textOf(gitea.create(clients, login, 'b', ['read:unknown']))).toContain('no such scope');
    const boss = { login: { username: login.name, password: PASSWORD }, user: 'boss' };
    expect(await textOf(clients.integrations.listGiteaTokens(boss))).toContain('only an admin of the site');
    expect(await textOf(gitea.list(clients, { ...login, password: secret }))).toContain('write:user');
    const { secret: manager } = await create(clients, login, 'manager', ['all']);
    expect(await gitea.list(clients, { ...login, password: manager })).toHaveLength(2);
  });

  it('keeps the records of a renamed user', async () => {
    const login = await newUser();
    const { key: alive } = await create(clients, login, 'alive');
    const { key: gone } = await create(clients, login, 'gone');
    await there('DELETE', `/users/${login.name}/tokens/${gone.id}`, {}, login.name);
    await there('POST', `/admin/users/${login.name}/rename`, { new_username: 'renamed' });
    expect(await textOf(gitea.list(clients, login))).toContain('the name is renamed now');
    const listed = await gitea.list(clients, { ...login, name: 'renamed' });
    expect(listed.map(({ id, difference }) => [id, difference])).toEqual([
      [alive.id, RemoteDifference.UNSPECIFIED],
      [gone.id, RemoteDifference.LOCAL_ONLY],
    ]);
  });

  it('marks no token as deleted while basic authentication is switched off', async () => {
    const made = [];
    for (const visibility of ['public', 'limited', 'private']) {
      const login = await newUser({ visibility });
      made.push({ login, ...(await create(clients, login, 'ci')) });
    }
    script('up', 'ENABLE_BASIC_AUTHENTICATION=false');
    for (const { login, key } of made)
      expect(await textOf(gitea.delete(clients, login, key.id))).toContain('basic authentication');
    script('up', 'REQUIRE_SIGNIN_VIEW=true');
    expect((await gitea.verify(clients, '0'.repeat(40))).result).toBe(DEAD);
    for (const { login, key, secret } of made) {
      expect(await gitea.list(clients, login)).toMatchObject([{ id: key.id, deleted: false, difference: 0 }]);
      expect((await gitea.verify(clients, secret)).result).toBe(ALIVE);
    }
  });
}

if (asked) requires('bash', 'curl').describe('the real Gitea', realGitea);
else describe.skip('the real Gitea', realGitea);

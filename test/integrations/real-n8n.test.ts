// If this fails, the doubles still agree with us, but the real n8n does not.
import { execFileSync, spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import { failureOf } from '../rpc/cases.ts';
import { requires } from '../support/requires.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { expectHidden, type Login, n8n } from './driver.ts';
import { lifeCases } from './life.ts';

const SCRIPT = new URL('../support/n8n.sh', import.meta.url).pathname;
const PASSWORD = 'Correct-horse-4711';
const OWNER = { name: 'owner@example.com', password: PASSWORD };
const START_MS = 30 * 60_000;
const { ALIVE, DEAD, UNKNOWN } = VerifyResult;

/** n8n is big: it is installed and run only by `npm run test:long`, where npm and PostgreSQL are. */
const needs = requires('bash', 'curl', 'pg_ctlcluster');
const missing =
  process.env.LONG && needs.here
    ? spawnSync('bash', [SCRIPT, 'possible'], { encoding: 'utf8' }).stderr
    : 'only for npm run test:long';
if (process.env.LONG && missing !== '') process.stderr.write(`No real n8n here: ${missing}`);

function realN8n(): void {
  const database = freshDatabase('sqlite', '');
  const secrets = [PASSWORD];
  let url = '';
  let server: TestServer;
  let clients: Clients;
  let ownerCookie = '';
  let members = 0;
  const up = (...mode: string[]) =>
    execFileSync('bash', [SCRIPT, 'up', ...mode], {
      stdio: ['ignore', 'pipe', 'inherit'],
      encoding: 'utf8',
    }).trim();
  beforeAll(async () => {
    execFileSync('bash', [SCRIPT, 'down'], { stdio: 'inherit' });
    url = up();
    server = await startServer(database.url, database.folder, { N8N_URL: url });
    clients = server.clients('grpc');
    const owner = { email: OWNER.name, firstName: 'O', lastName: 'W', password: PASSWORD };
    ownerCookie = (await there('POST', '/rest/owner/setup', '', owner)).cookie;
  }, START_MS);
  afterAll(async () => {
    await server.stop();
    expectHidden(secrets, { log: server.log.join(''), store: await database.contents() });
    await database.drop();
    execFileSync('bash', [SCRIPT, 'down'], { stdio: 'inherit' });
  }, START_MS);

  /** A call of n8n's own page. */
  const there = async (method: string, path: string, cookie: string, body?: object) => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { 'content-type': 'application/json', cookie },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const { data } = (await response.json()) as { data: Record<string, unknown> };
    return { data, cookie: response.headers.getSetCookie()[0]?.split(';', 1)[0] ?? '' };
  };
  /** Each has five logins a minute of its own. */
  const newMember = async (): Promise<Login & { cookie: string }> => {
    const name = `member-${members++}@example.com`;
    const invitation = [{ email: name, role: 'global:member' }];
    const { data } = await there('POST', '/rest/invitations', ownerCookie, invitation);
    const [invited] = data as unknown as [{ user: { inviteAcceptUrl: string } }];
    const token = new URL(invited.user.inviteAcceptUrl).searchParams.get('token');
    const accepted = { token, firstName: 'M', lastName: 'M', password: PASSWORD };
    const { cookie } = await there('POST', '/rest/invitations/accept', '', accepted);
    return { name, password: PASSWORD, cookie };
  };
  const create = async (...args: Parameters<typeof n8n.create>) => {
    const made = await n8n.create(...args);
    secrets.push(made.secret);
    return made;
  };
  const verifiedBy = (secret: string, { name, password }: Login) =>
    clients.integrations.verifyN8nApiKey({ secret, login: { loginId: name, password } });

  let fresh: Login;
  describe('a life', () => {
    beforeAll(async () => {
      fresh = await newMember();
    });
    lifeCases(n8n, () => ({ clients, login: fresh }));
  });

  it('lists 13 keys', async () => {
    const member = await newMember();
    const { key } = await create(clients, member, 'from here');
    for (let i = 0; i < 12; i++) {
      const body = { label: `by hand ${i}`, scopes: ['workflow:read'], expiresAt: null };
      await there('POST', '/rest/api-keys', member.cookie, body);
    }
    const listed = await n8n.list(clients, member);
    expect(listed).toHaveLength(13);
    expect(listed.find(({ id }) => id === key.id)?.difference).toBe(RemoteDifference.UNSPECIFIED);
    expect(listed.filter(({ difference }) => difference === RemoteDifference.REMOTE_ONLY)).toHaveLength(12);
  });

  it('marks a key that was rotated in n8n, whose old secret is DEAD', async () => {
    const member = await newMember();
    const { key, secret } = await create(clients, member, 'ci');
    const { data } = await there('POST', `/rest/api-keys/${key.id}/rotate`, member.cookie, {});
    expect(await n8n.list(clients, member)).toMatchObject([
      {
        id: key.id,
        difference: RemoteDifference.ROTATED_THERE,
        lastEight: String(data.rawApiKey).slice(-4),
      },
    ]);
    expect((await n8n.verify(clients, secret)).result).toBe(UNKNOWN);
    expect((await verifiedBy(secret, member)).result).toBe(DEAD);
    expect((await n8n.verify(clients, String(data.rawApiKey))).result).toBe(ALIVE);
  });

  it('reports a label in use, an invalid label and an unknown scope as different errors', async () => {
    const member = await newMember();
    await create(clients, member, 'ci');
    expect((await failureOf(n8n.create(clients, member, 'ci'))).reason).toBe('REMOTE_EXISTS');
    expect((await failureOf(n8n.create(clients, member, 'a<b'))).text).toContain('no < or >');
    expect((await failureOf(n8n.create(clients, member, 'b', ['no:such']))).text).toContain('no such scope');
    expect((await failureOf(n8n.list(clients, { ...member, name: 'nobody' }))).text).toContain('e-mail');
  });

  it("lists an owner's own keys, and lets the owner delete a member's key, whose record follows", async () => {
    const member = await newMember();
    const { key, secret } = await create(clients, member, 'ci');
    expect(await n8n.list(clients, OWNER)).toEqual([]);
    expect(await n8n.delete(clients, OWNER, key.id)).toMatchObject({
      key: { deleted: true },
      wasMissing: false,
    });
    expect(await n8n.list(clients, member)).toEqual([]);
    expect((await n8n.verify(clients, secret)).result).toBe(DEAD);
  });

  it('says how long to wait after five logins', async () => {
    const member = await newMember();
    for (let i = 0; i < 5; i++) await n8n.list(clients, member);
    const failure = await failureOf(n8n.list(clients, member));
    expect(failure.reason).toBe('REMOTE_RATE_LIMITED');
    expect(failure.text).toMatch(/come back in ([1-9]|[1-5]\d|60) s/);
  });

  it(
    'reports no live key as DEAD or deleted while its public API is switched off',
    async () => {
      const member = await newMember();
      const { key, secret } = await create(clients, member, 'ci');
      up('public-api-off');
      expect((await n8n.verify(clients, secret)).result).toBe(UNKNOWN);
      expect((await verifiedBy(secret, member)).result).toBe(UNKNOWN);
      for (const call of [() => n8n.list(clients, member), () => n8n.delete(clients, member, key.id)])
        expect((await failureOf(call())).text).toContain('N8N_PUBLIC_API_DISABLED');
      up();
      expect(await n8n.list(clients, member)).toMatchObject([{ id: key.id, deleted: false, difference: 0 }]);
      expect((await n8n.verify(clients, secret)).result).toBe(ALIVE);
    },
    START_MS,
  );
}

if (process.env.LONG && !needs.here) needs.describe('the real n8n 2.40.7', realN8n);
else describe.skipIf(missing !== '')('the real n8n 2.40.7', realN8n);

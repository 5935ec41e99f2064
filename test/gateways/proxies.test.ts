// If this fails, somebody who pastes a configuration of docs/gateways.md into a proxy has an unguarded service, or none.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { mintSecret } from '../../src/keys/secret.ts';
import { freePort } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { someKeys } from './asking.ts';
import { PROXIES, type ProxyName, type RunningProxy, rawStatus, startProxy, Upstream } from './proxies.ts';

const METHODS: Record<ProxyName, string> = {
  envoy: 'envoy.service.auth.v3.Authorization/Check',
  nginx: 'http/auth',
  traefik: 'http/auth',
  caddy: 'http/auth',
};
/** The response of Traefik when its auth server is unreachable. */
const AWAY: Record<ProxyName, number> = { envoy: 503, nginx: 503, traefik: 500, caddy: 503 };
const FORGED = {
  'x-apikey-id': 'uid-apikey-forged0000000000',
  'x-apikey-owner': 'forged',
  'x-apikey-type': 'forged',
  'x-apikey-scope': 'forged',
  'x-apikey-decision': 'forged',
};

const suite = (name: ProxyName) => {
  const database = freshDatabase('sqlite', '');
  const upstream = new Upstream();
  let settings: Record<string, string>;
  let server: TestServer;
  const serverLogs: string[][] = [];
  let admin: Clients['admin'];
  let keys: Awaited<ReturnType<typeof someKeys>>;
  let proxyKey: string;
  let proxy: RunningProxy;
  beforeAll(async () => {
    const [grpc, http] = [await freePort(), await freePort()];
    settings = {
      GRPC_ADDR: `127.0.0.1:${grpc}`,
      HTTP_ADDR: `127.0.0.1:${http}`,
      RATE_LIMIT_MAX_ATTEMPTS: '100',
    };
    server = await startServer(database.url, database.folder, settings);
    serverLogs.push(server.log);
    admin = server.clients('grpc').admin;
    keys = await someKeys(admin);
    const scopes = ['apikeys:validate'];
    const made = await admin.createKey({ name: 'proxy', ownerId: 'ops', keyType: 3, scopes });
    proxyKey = made.secret;
    await admin.createKey({ name: 'traces', ownerId: 'acme', keyType: 3, scopes: ['traces:*'] });
    const { folder } = database;
    proxy = await startProxy(name, { folder, grpc, http, upstream: await upstream.listen(), key: proxyKey });
  });
  afterAll(async () => {
    await proxy?.stop();
    upstream.close();
    await server.stop();
    await database.drop();
  });

  const ask = async (path: string, headers: Record<string, string> = {}, method = 'GET') => {
    const before = upstream.seen.length;
    const response = await fetch(`http://127.0.0.1:${proxy.port}${path}`, { headers, method });
    const body = await response.text();
    return { status: response.status, headers: response.headers, body, passed: upstream.seen.slice(before) };
  };
  const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });
  const events = async () => {
    const { events } = await admin.listAuditEvents({ pageSize: 1000, method: METHODS[name] });
    return events;
  };

  it('a valid key passes, and the service gets its owner but not the key', async () => {
    const { good } = keys;
    for (const credential of [bearer(good.secret), { 'x-api-key': good.secret }] as Record<
      string,
      string
    >[]) {
      const { status, passed } = await ask('/else', { ...credential, ...FORGED });
      expect(status).toBe(200);
      const [{ headers } = { headers: {} }] = passed;
      expect(headers).toMatchObject({
        'x-apikey-id': good.id,
        'x-apikey-owner': 'acme',
        'x-apikey-type': 'SERVICE',
      });
      expect(JSON.stringify(headers)).not.toContain('forged');
      expect(JSON.stringify(headers)).not.toContain(good.secret);
      expect(JSON.stringify(headers)).not.toContain(proxyKey);
    }
  });

  it('a route requires its scope', async () => {
    const { secret } = await admin.createKey({
      name: 't',
      ownerId: 'acme',
      keyType: 3,
      scopes: ['traces:*'],
    });
    for (const path of ['/traces', '/traces/1?x=1']) {
      const { status, passed } = await ask(path, { ...bearer(secret), ...FORGED });
      expect([status, passed[0]?.url, passed[0]?.headers['x-apikey-scope']]).toEqual([200, path, 'traces:*']);
      const refused = await ask(path, bearer(keys.good.secret));
      expect(refused).toMatchObject({ status: 403, passed: [] });
      expect(refused.headers.get('www-authenticate')).toBe(
        'Bearer error="insufficient_scope", scope="traces:read"',
      );
    }
  });

  it('every other key is denied', async () => {
    const { revoked, disabled, expired, rotated } = keys;
    const bad = [revoked, disabled, expired, rotated].map(({ secret }) => secret);
    for (const secret of [...bad, mintSecret(), 'x', 'k'.repeat(5_000)]) {
      const refused = await ask('/else', bearer(secret));
      expect(refused).toMatchObject({ status: 401, passed: [] });
      expect(refused.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"');
      expect(JSON.parse(refused.body)).toEqual({ error: 'invalid_token' });
    }
    const none = await ask('/else');
    expect(none).toMatchObject({ status: 401, passed: [] });
    expect(none.headers.get('www-authenticate')).toBe('Bearer');
  });

  it.each(['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH'])(
    'the method %s is guarded',
    async (method) => {
      expect(await ask('/else', {}, method)).toMatchObject({ status: 401, passed: [] });
      expect(await ask('/else', bearer(keys.good.secret), method)).toMatchObject({ status: 200 });
    },
  );

  it.each([
    '/traces/../else',
    '/health/../traces/1',
    '//traces/1',
    '/traces%2f1',
    '/health/',
    '/HEALTH',
    '/health%2f..%2ftraces',
  ])('no way round it by the path %s', async (path) => {
    const before = upstream.seen.length;
    const head = Buffer.from(`GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
    expect(await rawStatus(proxy.port, head)).toBeGreaterThanOrEqual(300);
    expect(upstream.seen.length).toBe(before);
  });

  it.each<[string, Buffer]>([
    ['10 kB of key', Buffer.from(`x-api-key: ${'k'.repeat(10_000)}`)],
    ['bytes that are no text', Buffer.from([...Buffer.from('x-api-key: '), 0xff, 0xfe, 0xc3, 0x28])],
    ['a key of none', Buffer.from('x-api-key:')],
    ['Bearer and nothing', Buffer.from('authorization: Bearer')],
  ])('%s is turned away', async (_what, line) => {
    const before = upstream.seen.length;
    const [start, end] = [Buffer.from('GET /else HTTP/1.1\r\nhost: x\r\n'), Buffer.from('\r\n\r\n')];
    const status = await rawStatus(proxy.port, Buffer.concat([start, line, end]));
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(500);
    expect(upstream.seen.length).toBe(before);
  });

  it('a request with two keys is denied', async () => {
    const before = upstream.seen.length;
    for (const header of ['authorization: Bearer ', 'x-api-key: ']) {
      const lines = `${header}${keys.good.secret}\r\n${header}${mintSecret()}`;
      const head = `GET /else HTTP/1.1\r\nhost: x\r\n${lines}\r\n\r\n`;
      expect(await rawStatus(proxy.port, Buffer.from(head))).toBeGreaterThanOrEqual(400);
    }
    expect(upstream.seen.length).toBe(before);
  });

  it('the client cannot forge its address, nor call apikeyd in place of the proxy', async () => {
    const forged = {
      'x-client-ip': '192.0.2.7',
      'x-forwarded-for': '192.0.2.7',
      'x-real-ip': '192.0.2.7',
      'x-envoy-external-address': '192.0.2.7',
      forwarded: 'for=192.0.2.7',
    };
    expect(await ask('/else', { ...bearer(keys.elsewhere.secret), ...forged })).toMatchObject({
      status: 403,
      passed: [],
    });
    const wrong = { 'x-apikeyd-authorization': `Bearer ${mintSecret()}` };
    const { status, passed } = await ask('/else', { ...bearer(keys.good.secret), ...forged, ...wrong });
    expect(status).toBe(200);
    if (name !== 'envoy' && name !== 'nginx')
      expect(passed[0]?.headers['x-apikeyd-authorization']).toBeUndefined();
    const [event] = await events();
    expect(event).toMatchObject({ clientIp: '127.0.0.1', outcome: 'DECISION_VALID' });
  });

  it('the response reports the limit, and when to retry', async () => {
    const { secret } = keys.limited;
    const first = await ask('/else', bearer(secret));
    expect(first.status).toBe(200);
    if (name === 'envoy' || name === 'nginx') {
      expect(first.headers.get('ratelimit')).toMatch(/^"m";r=1;t=\d+$/);
      expect(first.headers.get('ratelimit-policy')).toBe('"m";q=2;w=60');
    }
    await ask('/else', bearer(secret));
    const over = await ask('/else', bearer(secret));
    expect(over).toMatchObject({ status: 429, passed: [] });
    expect(Number(over.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(over.headers.get('ratelimit')).toMatch(/^"m";r=0;t=\d+$/);
  });

  it('an unguarded route does not ask apikeyd, and passes on no headers of a verdict', async () => {
    const before = (await events()).length;
    const { status, passed } = await ask('/health', FORGED);
    expect([status, passed.length]).toEqual([200, 1]);
    expect(JSON.stringify(passed[0]?.headers)).not.toContain('forged');
    expect((await events()).length).toBe(before);
  });

  if (name === 'envoy')
    it('a dry run lets everything pass and reports the decision', async () => {
      for (const [credential, decision] of [
        [bearer(keys.good.secret), 'VALID'],
        [bearer(keys.revoked.secret), 'REVOKED'],
        [{}, 'MALFORMED'],
      ] as [Record<string, string>, string][]) {
        const { status, passed } = await ask('/trial', { ...credential, ...FORGED });
        expect([status, passed[0]?.headers['x-apikey-decision']]).toEqual([200, decision]);
        expect(JSON.stringify(passed[0]?.headers)).not.toContain('forged');
      }
    });

  it('each request has one audit event', async () => {
    const before = (await events()).length;
    for (const secret of [keys.good.secret, keys.revoked.secret, keys.good.secret])
      await ask('/else', bearer(secret));
    expect((await events()).length).toBe(before + 3);
  });

  it('nothing passes while apikeyd is down, and valid keys pass once it is back', async () => {
    await server.stop();
    for (let i = 0; i < 3; i++)
      expect(await ask('/else', bearer(keys.good.secret))).toMatchObject({ status: AWAY[name], passed: [] });
    if (AWAY[name] === 503)
      expect((await ask('/else', bearer(keys.good.secret))).headers.get('retry-after')).toBe('1');
    server = await startServer(database.url, database.folder, settings);
    serverLogs.push(server.log);
    admin = server.clients('grpc').admin;
    await expect
      .poll(async () => (await ask('/else', bearer(keys.good.secret))).status, { timeout: 20_000 })
      .toBe(200);
  });

  it('a proxy whose key was revoked lets nothing pass', async () => {
    const { keys: all } = await admin.listKeys({ ownerId: 'ops' });
    await admin.revokeKey({ id: all[0]?.id ?? '', reason: 1 });
    const refused = await ask('/else', bearer(keys.good.secret));
    expect(refused.passed).toEqual([]);
    expect(refused.status).toBeGreaterThanOrEqual(500);
  });

  it('no log contains a key', async () => {
    // Envoy writes its log now and then, and at its end.
    await proxy.stop();
    const log = proxy.log() + serverLogs.flat().join('');
    expect(log).toContain('/else');
    for (const secret of [...Object.values(keys).map(({ secret }) => secret), proxyKey])
      expect(log).not.toContain(secret);
    expect(log).not.toMatch(/audit_v1_[\w-]{22}/);
    expect(log).not.toContain('k'.repeat(100));
  });
};

for (const name of PROXIES)
  requires(name).describe(`behind ${name} with the configuration of docs/gateways.md`, () => suite(name));

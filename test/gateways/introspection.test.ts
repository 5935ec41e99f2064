// If this fails, a program that introspects tokens takes a dead key for a live one, or cannot ask at all.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mintSecret } from '../../src/keys/secret.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { someKeys } from './asking.ts';

describe('introspection (RFC 7662)', () => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let admin: Clients['admin'];
  let keys: Awaited<ReturnType<typeof someKeys>>;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { RATE_LIMIT_MAX_ATTEMPTS: '2' });
    admin = server.clients('grpc').admin;
    keys = await someKeys(admin);
  });
  afterAll(async () => {
    expect(server.log.join('')).not.toContain(keys.good.secret);
    await server.stop();
    await database.drop();
  });

  const ask = async (form: Record<string, string> | string, init: RequestInit = {}) => {
    const response = await fetch(`http://127.0.0.1:${server.running.ports.http}/introspect`, {
      method: 'POST',
      body: new URLSearchParams(form),
      headers: { authorization: `Bearer ${server.adminKey}` },
      ...init,
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: JSON.parse(text) as Record<string, unknown>,
    };
  };

  it('returns the owner and the scopes of an active key', async () => {
    const { status, headers, body } = await ask({
      token: keys.good.secret,
      scope: 'a:b',
      token_type_hint: 'access_token',
    });
    expect(status).toBe(200);
    expect(headers.get('cache-control')).toBe('no-store');
    const { iat, ...claims } = body;
    expect(claims).toEqual({
      active: true,
      scope: 'a:*',
      client_id: keys.good.id,
      sub: 'acme',
      token_type: 'Bearer',
    });
    expect(Number.isInteger(iat)).toBe(true);
  });

  it('returns when the key expires', async () => {
    const made = await admin.createKey({
      name: 'k',
      ownerId: 'o',
      keyType: 3,
      scopes: ['a'],
      expiry: { case: 'expireTime', value: { seconds: 4_000_000_000n } },
    });
    expect((await ask({ token: made.secret })).body.exp).toBe(4_000_000_000);
  });

  it('returns only active: false for every other key', async () => {
    const { revoked, disabled, expired, rotated, elsewhere } = keys;
    const tokens = [revoked, disabled, expired, rotated, elsewhere].map(({ secret }) => secret);
    for (const token of [...tokens, mintSecret(), 'x', '', 'k'.repeat(10_000), '\u00ff\0'])
      expect(await ask({ token })).toMatchObject({ status: 200, body: { active: false } });
    expect((await ask({ token: keys.good.secret, scope: 'c:d' })).body).toEqual({ active: false });
  });

  it('returns when to retry', async () => {
    const { secret } = keys.limited;
    expect((await ask({ token: secret })).headers.get('ratelimit')).toMatch(/^"m";r=1;t=\d+$/);
    await ask({ token: secret });
    const limited = await ask({ token: secret });
    expect(limited).toMatchObject({ status: 429, body: { error: 'rate_limited' } });
    expect(Number(limited.headers.get('retry-after'))).toBeGreaterThan(0);
    const clientIp = '198.51.100.3';
    for (let i = 0; i < 2; i++) await ask({ token: mintSecret(), client_ip: clientIp });
    expect(await ask({ token: keys.good.secret, client_ip: clientIp })).toMatchObject({ status: 429 });
  });

  it('accepts the calling key as the password of Basic', async () => {
    const basic = (pair: string) => ({
      headers: { authorization: `Basic ${Buffer.from(pair).toString('base64')}` },
    });
    const form = { token: keys.good.secret };
    expect((await ask(form, basic(`anybody:${server.adminKey}`))).body.active).toBe(true);
    expect(await ask(form, basic(`${server.adminKey}:`))).toMatchObject({ status: 401 });
  });

  it('refuses a caller without a key, with a wrong key or without the scope', async () => {
    const form = { token: keys.good.secret };
    for (const headers of [{}, { authorization: `Bearer ${mintSecret()}` }, { authorization: 'Basic !' }]) {
      const refused = await ask(form, { headers });
      expect(refused).toMatchObject({ status: 401, body: { error: 'invalid_client' } });
      expect(refused.headers.get('www-authenticate')).toContain('Basic realm=');
    }
    await admin.clearLockout({ clientIp: '127.0.0.1' });
    const headers = { authorization: `Bearer ${keys.good.secret}` };
    expect(await ask(form, { headers })).toMatchObject({ status: 403 });
  });

  it.each<[string, number, Record<string, string> | string, RequestInit]>([
    ['no token', 400, {}, {}],
    ['two tokens', 400, 'token=a&token=b', {}],
    ['a parameter that there is not', 400, { token: 'x', scopes: 'a:b' }, {}],
    ['a scope that is none', 400, { token: 'x', scope: '*' }, {}],
    ['an address that is none', 400, { token: 'x', client_ip: 'x' }, {}],
    ['another type', 400, '', { body: '{"token":"x"}', headers: { 'content-type': 'application/json' } }],
    ['no body', 400, '', { body: null }],
    ['too long a form', 413, { token: 'k'.repeat(20_000) }, {}],
    ['GET', 405, '', { method: 'GET', body: null }],
  ])('refuses %s with %d and an event', async (_what, status, form, init) => {
    const headers = { authorization: `Bearer ${server.adminKey}`, ...(init.headers as object) };
    const refused = await ask(form, { ...init, headers });
    expect(refused).toMatchObject({ status, body: { error: 'invalid_request' } });
    const { events } = await admin.listAuditEvents({ pageSize: 2 });
    const event = events.find(({ method }) => method === 'http/introspect');
    expect(event?.outcome).toBe(status === 413 ? 'RESOURCE_EXHAUSTED' : 'INVALID_ARGUMENT');
  });
});

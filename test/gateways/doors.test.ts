// If this fails, a proxy admits requests that it must deny, or denies valid ones.
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { mintSecret } from '../../src/keys/secret.ts';
import {
  type Clients,
  freshDatabase,
  type StoreKind,
  startServer,
  type TestServer,
} from '../support/server.ts';
import { type Asked, type Caller, envoyOn, httpAuthOn, someKeys } from './asking.ts';

const mongoUri = inject('mongoUri');
const STORES: StoreKind[] = mongoUri === '' ? ['sqlite'] : ['sqlite', 'mongo'];
const CHECK = 'envoy.service.auth.v3.Authorization/Check';

describe.each(STORES)('the endpoints for proxies, on %s', (store) => {
  const database = freshDatabase(store, mongoUri || 'mongodb://localhost/');
  let server: TestServer;
  let admin: Clients['admin'];
  let keys: Awaited<ReturnType<typeof someKeys>>;
  let callers: Caller[];
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { RATE_LIMIT_MAX_ATTEMPTS: '3' });
    admin = server.clients('grpc').admin;
    keys = await someKeys(admin);
    callers = [
      envoyOn(server, 'grpc', server.adminKey),
      envoyOn(server, 'http', server.adminKey),
      envoyOn(server, 'http', server.adminKey, true),
      httpAuthOn(server, 'http', server.adminKey),
      httpAuthOn(server, 'grpc', server.adminKey),
    ];
  });
  afterAll(async () => {
    const log = server.log.join('');
    const contents = await database.contents();
    await server.stop();
    await database.drop();
    for (const { secret } of Object.values(keys)) {
      expect(log).not.toContain(secret);
      expect(contents).not.toContain(secret);
    }
  });

  const each = async (
    asked: Asked,
    check: (told: Awaited<ReturnType<Caller['ask']>>, name: string) => void,
  ) => {
    for (const caller of callers) check(await caller.ask(asked), caller.name);
  };
  const lastEvent = async () =>
    (await admin.listAuditEvents({ pageSize: 2 })).events.find(({ method }) => !method.includes('ListAudit'));
  const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

  it('admit a valid key and pass its id and owner to the upstream', async () => {
    await each({ headers: bearer(keys.good.secret), scope: 'a:b' }, (told, name) => {
      expect(told, name).toMatchObject({ status: 200, body: '' });
      expect(told.upstream).toEqual({
        'x-apikey-id': keys.good.id,
        'x-apikey-owner': 'acme',
        'x-apikey-type': 'SERVICE',
        'x-apikey-scope': 'a:*',
      });
      if (name.startsWith('Envoy'))
        expect([...told.removed].sort()).toEqual(['authorization', 'x-apikey-decision']);
    });
  });

  it.each(['bearer', 'BEARER', 'Bearer ', 'Bearer   '])('read the key behind "%s"', async (scheme) => {
    await each({ headers: { authorization: `${scheme} ${keys.good.secret}` } }, (told, name) =>
      expect(told.status, name).toBe(200),
    );
  });

  it('prefer authorization over x-api-key', async () => {
    await each({ headers: { 'x-api-key': keys.good.secret } }, ({ status }) => expect(status).toBe(200));
    const both = { ...bearer(mintSecret()), 'x-api-key': keys.good.secret };
    await each({ headers: both }, ({ status }) => expect(status).toBe(401));
    const basic = { authorization: 'Basic YTpi', 'x-api-key': keys.good.secret };
    await each({ headers: basic }, ({ status, removed }, name) => {
      expect(status, name).toBe(200);
      // Basic is between the client and the upstream.
      expect(removed).not.toContain('authorization');
    });
  });

  it('deny every key that does not work with the same response', async () => {
    const { good, revoked, disabled, expired, rotated } = keys;
    const bad: Record<string, Record<string, string>> = {
      'not a key': bearer('x'),
      unknown: bearer(mintSecret()),
      revoked: bearer(revoked.secret),
      disabled: bearer(disabled.secret),
      expired: bearer(expired.secret),
      rotated: bearer(rotated.secret),
      'nothing behind Bearer': { authorization: 'Bearer' },
      'one key twice': bearer(`${good.secret},Bearer ${good.secret}`),
      'two keys': { 'x-api-key': `${good.secret}, ${good.secret}` },
      'something behind it': bearer(`${good.secret} x`),
      '10 kB': bearer('k'.repeat(10_000)),
      'no text': bearer('\u00ff\u00fe'),
      'an empty key': { 'x-api-key': '' },
    };
    for (const [what, headers] of Object.entries(bad)) {
      await each({ headers }, (told, name) => {
        expect(told, `${what} at ${name}`).toMatchObject({ status: 401, upstream: {} });
        expect(told.client['www-authenticate']).toBe('Bearer error="invalid_token"');
        expect(JSON.parse(told.body)).toEqual({ error: 'invalid_token' });
      });
    }
  });

  it('ask for a key when there is none, and do not count that towards a lockout', async () => {
    for (let i = 0; i < 4; i++) {
      for (const headers of [
        {},
        { authorization: 'Basic YTpi' },
        { authorization: `Bearer\t${keys.good.secret}` },
      ])
        await each({ headers, peer: '198.51.100.1' }, (told, name) => {
          expect(told, name).toMatchObject({ status: 401 });
          expect(told.client['www-authenticate']).toBe('Bearer');
          expect(JSON.parse(told.body)).toEqual({ error: 'missing_token' });
        });
    }
    expect(await lastEvent()).toMatchObject({ outcome: 'DECISION_MALFORMED', clientIp: '198.51.100.1' });
    expect((await admin.listLockouts({})).lockouts).toEqual([]);
  });

  it('forbid a valid key actions outside of its scopes', async () => {
    await each({ headers: bearer(keys.good.secret), scope: 'c:d' }, (told, name) => {
      expect(told.status, name).toBe(403);
      expect(told.client['www-authenticate']).toBe('Bearer error="insufficient_scope", scope="c:d"');
    });
    await each({ headers: bearer(keys.elsewhere.secret), peer: '203.0.113.9' }, (told) =>
      expect(told.status).toBe(403),
    );
    await each({ headers: bearer(keys.elsewhere.secret) }, (told) => expect(told.status).toBe(403));
  });

  it.each([
    ['an address', '192.0.2.7'],
    ['an address with a port', '192.0.2.7:4711'],
    ['IPv4 in IPv6', '::ffff:192.0.2.7'],
    ['brackets and a port', '[::ffff:192.0.2.7]:443'],
    ['a zone', '::ffff:192.0.2.7%eth0'],
  ])("take %s for the client's", async (_what, peer) => {
    await each({ headers: bearer(keys.elsewhere.secret), peer }, (told, name) =>
      expect(told.status, name).toBe(200),
    );
    expect(await lastEvent()).toMatchObject({ clientIp: '192.0.2.7', outcome: 'DECISION_VALID' });
  });

  it('count hops from the right, where the client cannot forge entries', async () => {
    const headers = {
      ...bearer(keys.elsewhere.secret),
      'x-forwarded-for': '203.0.113.1, 192.0.2.7,10.0.0.1',
    };
    await each({ headers, trustedHops: '2' }, (told, name) => expect(told.status, name).toBe(200));
    await each({ headers, trustedHops: '1' }, (told) => expect(told.status).toBe(403));
    await each({ headers, trustedHops: '3' }, (told) => expect(told.status).toBe(403));
    // More than there are: the request came round the proxies that were to be passed.
    await each({ headers, trustedHops: '4' }, (told) => expect(told.status).toBe(500));
  });

  it.each([
    ['rubbish', 'unknown'],
    ['a name', 'client.example'],
    ['nothing', ''],
    ['a lone comma', ','],
    ['an address too long', `192.0.2.7${' '.repeat(100)}7`],
    ['a huge list', `${'192.0.2.7, '.repeat(500)}x`],
    ['half a bracket', '[192.0.2.7'],
    ['too large a part', '192.0.2.700'],
  ])('take %s in x-forwarded-for for a fault of the configuration', async (_what, forwarded) => {
    const headers = { ...bearer(keys.good.secret), 'x-forwarded-for': forwarded };
    await each({ headers, trustedHops: '1' }, (told, name) => {
      expect(told, name).toMatchObject({ status: 500, upstream: {} });
      expect(JSON.parse(told.body)).toEqual({ error: 'gateway_misconfigured' });
    });
  });

  it.each<[string, Partial<Asked>]>([
    ['an option that there is not', { more: { requiredscope: 'a:b' } }],
    ['an option named as what every object has', { more: { constructor: 'x' } }],
    ['a scope with *', { scope: '*' }],
    ['an empty scope', { scope: '' }],
    ['a scope beyond all bounds', { scope: 'a'.repeat(2_000) }],
    ['a cost that is none', { cost: 'many' }],
    ['a negative cost', { cost: '-1' }],
    ['too large a cost', { cost: '1000000001' }],
    ['a cost of 40 digits', { cost: '9'.repeat(40) }],
    ['no hop', { trustedHops: '0' }],
    ['negative hops', { trustedHops: '-1' }],
    ['a hop and a half', { trustedHops: '1.5' }],
    ['hops without end', { trustedHops: '999999999999' }],
    ['a dry run that is neither', { dryRun: 'yes' }],
    ['an address that is none', { peer: 'not-an-address' }],
  ])('deny with 500, and say it once in the log: %s', async (_what, wrong) => {
    for (let i = 0; i < 2; i++)
      await each({ headers: bearer(keys.good.secret), ...wrong }, (told, name) => {
        expect(told, name).toMatchObject({ status: 500, upstream: {} });
        expect(JSON.parse(told.body)).toEqual({ error: 'gateway_misconfigured' });
      });
    const said = server.log
      .map((line) => JSON.parse(line) as { method?: string; msg: string })
      .filter(({ msg }) => msg.startsWith('a proxy asks wrongly'))
      .map(({ method, msg }) => `${method} ${msg}`);
    expect(said).toContainEqual(expect.stringMatching(/^http\/auth a proxy/));
    expect(said).toContainEqual(
      expect.stringMatching(/^envoy\.service\.auth\.v3\.Authorization\/Check a proxy/),
    );
    expect(new Set(said).size).toBe(said.length);
    expect(await lastEvent()).toMatchObject({ outcome: 'INVALID_ARGUMENT', reason: 'INVALID_REQUEST' });
  });

  it('report the state of the limits, and when to retry', async () => {
    await admin.updateKey({
      key: { id: keys.limited.id, rateLimits: [{ name: 'm', limit: 5n, window: { seconds: 60n } }] },
      updateMask: { paths: ['rate_limits'] },
    });
    const left: string[] = [];
    await each({ headers: bearer(keys.limited.secret) }, (told) => {
      expect(told.client['ratelimit-policy']).toBe('"m";q=5;w=60');
      left.push(/^"m";r=(\d);t=(?:[1-5]?\d|60)$/.exec(told.client.ratelimit ?? '')?.[1] ?? '');
    });
    expect(left).toEqual(['4', '3', '2', '1', '0']);
    await each({ headers: bearer(keys.limited.secret) }, (told, name) => {
      expect(told.status, name).toBe(429);
      expect(told.client['retry-after']).toMatch(/^([1-5]?\d|60)$/);
      expect(told.client['retry-after']).not.toBe('0');
      expect(JSON.parse(told.body)).toEqual({ error: 'rate_limited' });
    });
    // It can never be admitted, so there is no time to come back at.
    await each({ headers: bearer(keys.limited.secret), cost: '6' }, (told) => {
      expect(told.status).toBe(429);
      expect(told.client['retry-after']).toBeUndefined();
    });
  });

  it('lock out an address that guesses keys, and no other', async () => {
    const [caller] = callers;
    for (let i = 0; i < 2; i++)
      expect((await caller?.ask({ headers: bearer(mintSecret()), peer: '198.51.100.7' }))?.status).toBe(401);
    await caller?.ask({ headers: bearer(mintSecret()), peer: '198.51.100.7' });
    await each({ headers: bearer(keys.good.secret), peer: '198.51.100.7' }, (told, name) => {
      expect(told.status, name).toBe(429);
      expect(Number(told.client['retry-after'])).toBeGreaterThan(800);
      expect(JSON.parse(told.body)).toEqual({ error: 'too_many_failures' });
    });
    await each({ headers: bearer(keys.good.secret), peer: '198.51.100.8' }, ({ status }) =>
      expect(status).toBe(200),
    );
  });

  it('admit everything in a dry run, and audit the decision', async () => {
    for (const [headers, decision] of [
      [bearer(keys.revoked.secret), 'REVOKED'],
      [bearer(keys.good.secret), 'VALID'],
      [{}, 'MALFORMED'],
    ] as const) {
      await each({ headers, dryRun: 'true' }, (told, name) => {
        expect(told, name).toMatchObject({ status: 200, upstream: { 'x-apikey-decision': decision } });
        expect(Object.keys(told.upstream)).toEqual(['x-apikey-decision']);
      });
      expect(await lastEvent()).toMatchObject({ outcome: `DECISION_${decision}`, dryRun: true });
    }
  });

  it('leave one event per question, under the name of the endpoint', async () => {
    const counts = async () => {
      const methods = new Map<string, number>();
      let pageToken = '';
      do {
        const page = await admin.listAuditEvents({ pageSize: 1000, pageToken });
        for (const { method } of page.events) methods.set(method, (methods.get(method) ?? 0) + 1);
        pageToken = page.nextPageToken;
      } while (pageToken !== '');
      return methods;
    };
    const before = await counts();
    for (const headers of [bearer(keys.good.secret), {}, bearer(keys.revoked.secret)])
      await each({ headers, scope: 'a:b' }, () => {});
    const after = await counts();
    const added = (method: string) => (after.get(method) ?? 0) - (before.get(method) ?? 0);
    expect([added(CHECK), added('http/auth')]).toEqual([9, 6]);
  });

  it('count each question in the metrics', async () => {
    const text = await (await fetch(`http://127.0.0.1:${server.running.ports.metrics}/metrics`)).text();
    for (const method of [CHECK, 'http/auth']) {
      expect(text).toMatch(new RegExp(`apikeyd_calls_total\\{method="${method}",code="OK"\\} [1-9]`));
      expect(text).toMatch(
        new RegExp(`apikeyd_calls_total\\{method="${method}",code="INVALID_ARGUMENT"\\} [1-9]`),
      );
    }
  });

  it('refuse a proxy without a key, with a wrong key or without the scope', async () => {
    const wrongKeys = ['', mintSecret(), keys.good.secret];
    const codes = [16, 16, 7];
    for (const [i, key] of wrongKeys.entries()) {
      const asked = { headers: bearer(keys.good.secret) };
      await expect(envoyOn(server, 'grpc', key).ask(asked)).rejects.toMatchObject({ code: codes[i] });
      expect(await httpAuthOn(server, 'http', key).ask(asked)).toMatchObject({ status: 500, upstream: {} });
    }
  });
});

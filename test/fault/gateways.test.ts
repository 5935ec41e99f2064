// If this fails, a proxy lets requests through while apikeyd is dead, frozen or overloaded, or after a key was revoked.
import { type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { RevokeReason } from '../../gen/apikey/v1/key_pb.ts';
import { type RunningProxy, startProxy, Upstream } from '../gateways/proxies.ts';
import { freePort, type ServerProcess, spawnServer } from '../support/process.ts';
import { frame } from '../support/raw.ts';
import { requires } from '../support/requires.ts';
import { type Clients, clientsOf, freshDatabase } from '../support/server.ts';
import { wiredServer } from '../support/wired.ts';

const long = process.env.LONG !== undefined;
const REQUESTS = long ? 10_000 : 600;
const ROUNDS = long ? 500 : 3;
/** Rounds that go at the same time, each with a key of its own. */
const ABREAST = long ? 10 : 3;
const WORKERS = 16;
const ADMIN = 'audit_v1_gatewaygatewaygatewayA';
const CHECK = 'envoy.service.auth.v3.Authorization/Check';

const ask = async (port: number, secret: string) => {
  const headers = { authorization: `Bearer ${secret}` };
  const response = await fetch(`http://127.0.0.1:${port}/else`, { headers });
  await response.arrayBuffer();
  return response.status;
};

async function makeKey(admin: Clients['admin']) {
  const { key, secret } = await admin.createKey({ name: 'k', ownerId: 'o', keyType: 3, scopes: ['a'] });
  return { id: key?.id ?? '', secret };
}

requires('envoy').describe('a service behind Envoy', () => {
  const database = freshDatabase('sqlite', '');
  const upstream = new Upstream();
  let settings: Record<string, string>;
  let server: ServerProcess;
  let envoy: RunningProxy;
  let admin: Clients['admin'];
  let good: { id: string; secret: string };
  let revoked: { id: string; secret: string };
  const start = async () => {
    server = await spawnServer(database.url, database.folder, settings);
    admin = clientsOf(server.ports, 'grpc', ADMIN).admin;
  };
  beforeAll(async () => {
    const [grpc, http] = [await freePort(), await freePort()];
    settings = {
      GRPC_ADDR: `127.0.0.1:${grpc}`,
      HTTP_ADDR: `127.0.0.1:${http}`,
      ADMIN_BOOTSTRAP_KEY: ADMIN,
      RATE_LIMIT_MAX_ATTEMPTS: '1000000',
    };
    await start();
    good = await makeKey(admin);
    revoked = await makeKey(admin);
    await admin.revokeKey({ id: revoked.id, reason: RevokeReason.KEY_COMPROMISE });
    const { folder } = database;
    envoy = await startProxy('envoy', { folder, grpc, http, upstream: await upstream.listen(), key: ADMIN });
  });
  afterAll(async () => {
    await envoy?.stop();
    upstream.close();
    await server.end('SIGTERM');
    await database.drop();
  });

  const passed = () => upstream.seen.filter(({ headers }) => headers['x-apikey-id'] !== good.id);
  const eventsOf = async (keyId: string) => {
    let count = 0;
    let pageToken = '';
    do {
      const page = await admin.listAuditEvents({ keyId, method: CHECK, pageSize: 1000, pageToken });
      count += page.events.length;
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return count;
  };

  it(`gets ${REQUESTS} requests, and each has exactly one audit event`, async () => {
    upstream.seen.length = 0;
    const before = await eventsOf(good.id);
    let sent = 0;
    const work = async () => {
      while (sent++ < REQUESTS) expect(await ask(envoy.port, good.secret)).toBe(200);
    };
    await Promise.all(Array.from({ length: WORKERS }, work));
    expect(upstream.seen.length).toBe(REQUESTS);
    expect((await eventsOf(good.id)) - before).toBe(REQUESTS);
  });

  it('gets no unauthorised request while apikeyd is frozen, flooded, killed and restarted', async () => {
    upstream.seen.length = 0;
    const seen = new Map<string, number>();
    let over = false;
    const note = (name: string, status: number) =>
      seen.set(`${name} ${status}`, (seen.get(`${name} ${status}`) ?? 0) + 1);
    let sent = 0;
    const work = async () => {
      while (!over || sent < REQUESTS) {
        sent++;
        note('good', await ask(envoy.port, good.secret));
        note('revoked', await ask(envoy.port, revoked.secret));
      }
    };
    const workers = Promise.all(Array.from({ length: WORKERS }, work));
    const until = (name: string) => {
      const was = seen.get(name) ?? 0;
      return expect.poll(() => (seen.get(name) ?? 0) > was, { timeout: 30_000 }).toBe(true);
    };
    try {
      await until('good 200');
      // Frozen: Envoy waits for a second, and says that there is no decision.
      server.child.kill('SIGSTOP');
      await until('good 503');
      await until('revoked 503');
      // Flooded, when it goes on.
      const flood = floodOf(server.ports.grpc, ADMIN);
      await until('good 503');
      server.child.kill('SIGCONT');
      await flood.told;
      await until('good 200');
      await server.end('SIGKILL');
      await until('good 503');
      await until('revoked 503');
      await start();
      await until('good 200');
      await until('revoked 401');
    } finally {
      server.child.kill('SIGCONT');
      over = true;
      await workers;
    }
    expect([...seen.keys()].sort()).toEqual(['good 200', 'good 503', 'revoked 401', 'revoked 503']);
    expect(passed()).toEqual([]);
    expect(upstream.seen.length).toBe(seen.get('good 200'));
  });
});

/** More questions at once than are served at once; the grpc-status of each. */
function floodOf(
  port: number,
  key: string,
): { readonly refused: Promise<void>; readonly told: Promise<string[]> } {
  const sessions = Array.from({ length: 60 }, () => connectHttp2(`http://127.0.0.1:${port}`));
  const headers = {
    ':method': 'POST',
    ':path': `/${CHECK}`,
    'content-type': 'application/grpc',
    authorization: `Bearer ${key}`,
    te: 'trailers',
  };
  let noteRefused = () => {};
  const refused = new Promise<void>((resolve) => (noteRefused = resolve));
  const statusOf = (stream: ClientHttp2Stream) =>
    new Promise<string>((resolve) => {
      const note = (told: Record<string, unknown>) => {
        if (told['grpc-status'] === '8') noteRefused();
        if (told['grpc-status'] !== undefined) resolve(String(told['grpc-status']));
      };
      stream.on('response', note);
      stream.on('trailers', note);
      stream.on('error', () => resolve('reset'));
      stream.on('close', () => resolve('reset'));
      stream.resume().end(frame(Buffer.alloc(0)));
    });
  for (const session of sessions) session.on('error', () => {});
  const asked = sessions.flatMap((session) =>
    Array.from({ length: 100 }, () => statusOf(session.request(headers))),
  );
  const told = Promise.all(asked).then((statuses) => {
    for (const session of sessions) session.destroy();
    return statuses;
  });
  return { refused, told };
}

requires('envoy', 'mongodb').describe('a service behind Envoy, with the store held up', () => {
  const wired = wiredServer(inject('mongoUri'));

  it('gets no request while apikeyd refuses calls for overload, and all of them once the store responds again', async () => {
    const upstream = new Upstream();
    const { server, wire, database, clients } = wired;
    const { grpc, http } = server.running.ports;
    const around = { folder: database.folder, grpc, http, upstream: await upstream.listen() };
    const envoy = await startProxy('envoy', { ...around, key: server.adminKey });
    try {
      const { secret } = await makeKey(clients.admin);
      expect(await ask(envoy.port, secret)).toBe(200);
      upstream.seen.length = 0;
      wire.hold();
      const flood = floodOf(grpc, server.adminKey);
      await flood.refused;
      for (let i = 0; i < 5; i++) expect(await ask(envoy.port, secret)).toBe(503);
      expect(upstream.seen).toEqual([]);
      wire.mend();
      expect(await flood.told).toContain('8');
      await expect.poll(() => ask(envoy.port, secret), { timeout: 30_000 }).toBe(200);
    } finally {
      wire.mend();
      await envoy.stop();
      upstream.close();
    }
  });
});

requires('envoy', 'mongodb').describe('two processes on one MongoDB, Envoy before the second', () => {
  const database = freshDatabase('mongo', inject('mongoUri') || 'mongodb://localhost/');
  const upstream = new Upstream();
  let servers: ServerProcess[];
  let envoy: RunningProxy;
  let admin: Clients['admin'];
  beforeAll(async () => {
    const settings = { ADMIN_BOOTSTRAP_KEY: ADMIN };
    const first = await spawnServer(database.url, database.folder, settings);
    const second = await spawnServer(database.url, database.folder, settings);
    servers = [first, second];
    admin = clientsOf(first.ports, 'grpc', ADMIN).admin;
    const { grpc, http } = second.ports;
    const { folder } = database;
    envoy = await startProxy('envoy', { folder, grpc, http, upstream: await upstream.listen(), key: ADMIN });
  });
  afterAll(async () => {
    await envoy?.stop();
    upstream.close();
    for (const server of servers) await server.end('SIGTERM');
    await database.drop();
  });

  it(`deny a key in the first request after its revocation at the other, ${ROUNDS} times`, async () => {
    let rounds = 0;
    const work = async () => {
      while (rounds++ < ROUNDS) {
        const { id, secret } = await makeKey(admin);
        expect(await ask(envoy.port, secret)).toBe(200);
        await admin.revokeKey({ id, reason: RevokeReason.KEY_COMPROMISE });
        expect(await ask(envoy.port, secret)).toBe(401);
      }
    };
    await Promise.all(Array.from({ length: ABREAST }, work));
  });
});

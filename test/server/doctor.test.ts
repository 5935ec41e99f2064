// If this fails, doctor does not explain why a server does not start, or counts wrongly.
import { writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { MongoClient } from 'mongodb';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { readConfig } from '../../src/config.ts';
import { examine } from '../../src/server/doctor.ts';
import { knock } from '../../src/server/knock.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import { LEASE, LOCKOUT } from '../store/contract/harness.ts';
import { selfSigned } from '../support/certificate.ts';
import { TestClock } from '../support/clock.ts';
import { apikeyd, freePort } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase, startServer } from '../support/server.ts';

const ANY = { GRPC_ADDR: '127.0.0.1:0', HTTP_ADDR: '127.0.0.1:0', METRICS_ADDR: '127.0.0.1:0' };

describe('apikeyd doctor', () => {
  const database = freshDatabase('sqlite', '');
  afterAll(() => database.drop());
  const doctor = (env: Record<string, string>) =>
    apikeyd(['doctor'], { env: { ...ANY, STORE_URL: database.url, ...env } });

  it('reports no problem when a server would start, and changes nothing', async () => {
    const { code, stdout } = await doctor({});
    expect([code, stdout]).toEqual([0, expect.stringMatching(/ok +store +not there yet/)]);
    expect(await database.contents()).toBe('');
  });

  it('reports a store that cannot be opened', async () => {
    const away = await doctor({ STORE_URL: 'mongodb://user:hunter2@127.0.0.1:1/x' });
    expect(away).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/WRONG +store +STORE_URL: no MongoDB server answers/),
    });
    expect(away.stdout + away.stderr).not.toContain('hunter2');
    const file = join(database.folder, 'file');
    writeFileSync(file, '');
    expect((await doctor({ STORE_URL: `sqlite:${file}/x.db` })).stdout).toMatch(
      /WRONG +store +STORE_URL: cannot use/,
    );
    expect((await doctor({ STORE_URL: 'redis://x' })).stdout).toMatch(
      /WRONG +store +STORE_URL: must begin with/,
    );
  });

  it('reports TLS files that are unreadable or expired', async () => {
    const times = { from: new Date(), until: new Date(Date.now() + 30 * 86_400_000) };
    const { certFile: cert, keyFile: key } = selfSigned(database.folder, times);
    expect((await doctor({ TLS_CERT_FILE: cert, TLS_KEY_FILE: key })).stdout).toMatch(
      /ok +TLS_CERT_FILE +valid until/,
    );
    const config = readConfig({ ...ANY, STORE_URL: database.url, TLS_CERT_FILE: cert, TLS_KEY_FILE: key });
    const seen = async (days: number) =>
      (await examine(config, new Date(Date.now() + days * 86_400_000))).find(
        ({ what }) => what === 'TLS_CERT_FILE',
      );
    const soon = { ok: false, text: expect.stringMatching(/^expires within 14 days, at/) };
    expect([await seen(15), await seen(17)]).toMatchObject([{ ok: true }, soon]);
    expect(await seen(31)).toMatchObject({ ok: false, text: expect.stringMatching(/^expired at/) });
    expect(await seen(-1)).toMatchObject({ ok: false, text: expect.stringMatching(/^not valid before/) });
    writeFileSync(cert, 'nonsense');
    const broken = await doctor({ TLS_CERT_FILE: cert, TLS_KEY_FILE: '/nowhere' });
    expect(broken.stdout).toMatch(/WRONG +TLS_CERT_FILE +cannot be used/);
    expect(broken.stdout).toMatch(/WRONG +TLS_KEY_FILE +cannot be used: ENOENT/);
  });

  it('reports ports in use', async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
    const { port } = holder.address() as { port: number };
    expect((await doctor({ HTTP_ADDR: `127.0.0.1:${port}` })).stdout).toMatch(
      /WRONG +HTTP_ADDR +127.0.0.1:\d+ is taken/,
    );
    holder.close();
  });

  it('checks each endpoint for proxies of a running server', async () => {
    const at = async () => `127.0.0.1:${await freePort()}`;
    const addresses = { GRPC_ADDR: await at(), HTTP_ADDR: await at(), METRICS_ADDR: await at() };
    const server = await startServer(database.url, database.folder, addresses);
    const { stdout } = await doctor(addresses);
    for (const door of ["Envoy's Check", '/auth', '/introspect'])
      for (const port of ['GRPC_ADDR', 'HTTP_ADDR'])
        expect(stdout).toMatch(new RegExp(`ok +${door} on ${port} +answers`));
    await server.stop();
    const config = readConfig({ ...addresses, STORE_URL: database.url });
    const found = async () => (await knock(config, 'HTTP_ADDR')).map(({ ok, text }) => [ok, text]);
    const nobody = [false, expect.stringMatching(/^does not answer: /)];
    expect(await found()).toEqual([nobody, nobody, nobody]);
    const other = createHttpServer((_request, response) => response.end('hello'));
    const { http } = server.running.ports;
    await new Promise<void>((resolve) => other.listen(http, '127.0.0.1', resolve));
    const another = [false, 'answered by something else: is it this server?'];
    expect(await found()).toEqual([nobody, another, another]);
    other.close();
  });

  const mongoUri = inject('mongoUri');
  requires('mongodb').it('reports a missing index, and one that is not unique', {}, async () => {
    const mongo = freshDatabase('mongo', mongoUri);
    const client = await new MongoClient(mongo.url).connect();
    try {
      expect((await doctor({ STORE_URL: mongo.url })).stdout).toMatch(/ok +indexes +not made yet/);
      const store = await openMongoStore({
        url: mongo.url,
        clock: new TestClock(),
        lockout: LOCKOUT,
        lease: LEASE,
        warn: () => {},
      });
      await store.close();
      const well = await doctor({ STORE_URL: mongo.url });
      expect(well.stdout).toMatch(/ok +clock +-?\d+ ms from the store's/);
      expect([well.code, well.stdout]).toEqual([0, expect.stringMatching(/ok +indexes +all there/)]);
      await client.db().collection('api_keys').dropIndex('by_owner');
      await client.db().collection('api_key_limits').dropIndex('key');
      await client.db().collection('api_key_limits').createIndex({ key: 1 }, { name: 'key' });
      const ill = await doctor({ STORE_URL: mongo.url });
      expect(ill.stdout).toMatch(/WRONG +index api_keys.by_owner +missing/);
      expect(ill.stdout).toMatch(/WRONG +index api_key_limits.key +not unique/);
    } finally {
      await client.close();
      await mongo.drop();
    }
  });
});

// If this fails, dashboards that listen on Redis hear nothing, or Redis can hold up or fill the server.
import { type ChildProcess, spawn } from 'node:child_process';
import { createClient } from '@redis/client';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import type { Alert } from '../../src/keys/notices.ts';
import { REDIS_CHANNEL, RedisAlerts } from '../../src/watch/redis-alerts.ts';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { freePort } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase, startServer } from '../support/server.ts';

const alert = (id: string): Alert => ({
  id,
  type: 'ANOMALY',
  time: Date.parse('2026-03-01T12:00:00Z'),
  keyId: 'uid-apikey-0000000000000001',
  clientIp: '',
  text: 'text',
  detail: { anomaly: 'MULTIPLE_IPS' },
});

requires('redis-server').describe('alerts on Redis', () => {
  let port: number;
  let redis: ChildProcess;
  const warnings: string[] = [];
  const start = async () => {
    redis = spawn('redis-server', ['--port', String(port), '--save', '', '--bind', '127.0.0.1'], {
      stdio: 'pipe',
    });
    await new Promise<void>((resolve) =>
      redis.stdout?.on('data', (text) => String(text).includes('Ready') && resolve()),
    );
  };
  const stop = async () => {
    const gone = new Promise((resolve) => redis.once('exit', resolve));
    redis.kill('SIGKILL');
    await gone;
  };
  beforeAll(async () => {
    port = await freePort();
    await start();
  });
  afterAll(() => void redis.kill('SIGKILL'));
  let alerts: RedisAlerts | undefined;
  afterEach(() => alerts?.close());

  const published = async (id: string) => {
    try {
      await alerts?.publish(alert(id));
      return true;
    } catch {
      return false;
    }
  };

  it('publish JSON on the channel, and reconnect after Redis was down, with one warning', async () => {
    const heard: string[] = [];
    const listen = async () => {
      const listener = createClient({ url: `redis://127.0.0.1:${port}` });
      listener.on('error', () => {});
      await listener.connect();
      await listener.subscribe(REDIS_CHANNEL, (message) => heard.push(message));
      return listener;
    };
    let listener = await listen();
    alerts = new RedisAlerts(`redis://127.0.0.1:${port}`, (text) => warnings.push(text));
    await vi.waitFor(async () => expect(await published('a')).toBe(true), HANGS_MS);
    await vi.waitFor(() => expect(heard).toHaveLength(1), HANGS_MS);
    expect(JSON.parse(heard[0] ?? '')).toEqual({
      id: 'a',
      type: 'ANOMALY',
      time: '2026-03-01T12:00:00.000Z',
      key_id: 'uid-apikey-0000000000000001',
      client_ip: '',
      text: 'text',
      detail: { anomaly: 'MULTIPLE_IPS' },
    });
    listener.destroy();
    await stop();
    for (let i = 0; i < 3; i++) expect(await published('b')).toBe(false);
    expect(warnings).toHaveLength(1);
    await start();
    listener = await listen();
    await vi.waitFor(async () => expect(await published('c')).toBe(true), HANGS_MS);
    await vi.waitFor(() => expect(heard.some((message) => message.includes('"c"'))).toBe(true), HANGS_MS);
    expect(warnings).toHaveLength(1);
    listener.destroy();
  });

  it('fail at once, with one warning, without a Redis', async () => {
    const told: string[] = [];
    alerts = new RedisAlerts('redis://user:hunter2@127.0.0.1:1', (text, error) =>
      told.push(`${text} ${error}`),
    );
    const begun = Date.now();
    expect(await published('a')).toBe(false);
    expect(Date.now() - begun).toBeLessThan(4_000);
    await vi.waitFor(() => expect(told).toHaveLength(1), HANGS_MS);
    expect(told.join('')).not.toContain('hunter2');
  });

  it('contain the alerts of a server, which keeps deciding while Redis is down', async () => {
    const database = freshDatabase('sqlite', '');
    const server = await startServer(database.url, database.folder, {
      REDIS_URL: `redis://127.0.0.1:${port}`,
    });
    const clients = server.clients('grpc');
    const heard: { type: string; client_ip: string }[] = [];
    const listen = async () => {
      const listener = createClient({ url: `redis://127.0.0.1:${port}` });
      listener.on('error', () => {});
      await listener.connect();
      await listener.subscribe(REDIS_CHANNEL, (message) => heard.push(JSON.parse(message)));
      return listener;
    };
    const lockOut = async (clientIp: string) => {
      for (let i = 0; i < 5; i++) expect(await decisionOf(clients, 'x', { clientIp })).toBe('MALFORMED');
    };
    let listener = await listen();
    let next = 3;
    try {
      await lockOut('192.0.2.1');
      await vi.waitFor(
        () => expect(heard).toMatchObject([{ type: 'LOCKOUT', client_ip: '192.0.2.1' }]),
        HANGS_MS,
      );
      listener.destroy();
      await stop();
      const { secret } = await makeKey(clients);
      await lockOut('192.0.2.2');
      for (let i = 0; i < 20; i++) expect(await decisionOf(clients, secret)).toBe('VALID');
      const said = () => server.log.filter((line) => line.includes('Redis is away'));
      await vi.waitFor(() => expect(said()).toHaveLength(1), HANGS_MS);
      await start();
      listener = await listen();
      await vi.waitFor(async () => {
        await lockOut(`192.0.2.${next++}`);
        expect(heard.length).toBeGreaterThan(1);
      }, HANGS_MS);
      expect(said()).toHaveLength(1);
    } finally {
      listener.destroy();
      await server.stop();
      await database.drop();
    }
  });
});

// If this fails, a server whose embedded store can write no more stays up, looks healthy, and answers nothing.
import type { Worker } from 'node:worker_threads';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { afterAll, expect, it, vi } from 'vitest';
import { Health, HealthCheckResponse_ServingStatus } from '../../gen/grpc/health/v1/health_pb.ts';
import { readConfig } from '../../src/config.ts';
import { serve, systemClock } from '../../src/server/serve.ts';
import { createLogger } from '../../src/server/telemetry.ts';
import { freshDatabase } from '../support/server.ts';

const { SERVING, NOT_SERVING } = HealthCheckResponse_ServingStatus;

const threads = vi.hoisted(() => [] as Worker[]);
vi.mock('node:worker_threads', async (importOriginal) => {
  const real = await importOriginal<typeof import('node:worker_threads')>();
  class Kept extends real.Worker {
    constructor(...args: ConstructorParameters<typeof real.Worker>) {
      super(...args);
      threads.push(this);
    }
  }
  return { ...real, Worker: Kept };
});

const database = freshDatabase('sqlite', '');
afterAll(() => database.drop());

it('when the thread of the store dies, /healthz and the service liveness fail, and the process ends', async () => {
  const config = readConfig({
    STORE_URL: database.url,
    GRPC_ADDR: '127.0.0.1:0',
    HTTP_ADDR: '127.0.0.1:0',
    METRICS_ADDR: '127.0.0.1:0',
    APIKEYD_KEY_FILE: `${database.folder}/admin.key`,
  });
  let broken = (_error: unknown) => {};
  const told = new Promise((resolve) => (broken = resolve));
  const logger = createLogger('silent', 'json', { write: () => {} });
  const { ports, stop } = await serve(config, logger, systemClock, { broken: (error) => broken(error) });
  const status = async (path: string) => {
    const of = (port: number) => fetch(`http://127.0.0.1:${port}${path}`);
    const [page, probe] = await Promise.all([of(ports.http), of(ports.metrics)]);
    expect(probe.status).toBe(page.status);
    return page.status;
  };
  const { check } = createClient(Health, createGrpcTransport({ baseUrl: `http://127.0.0.1:${ports.grpc}` }));
  const live = async () => (await check({ service: 'liveness' })).status;
  expect([await status('/healthz'), await status('/readyz'), await live()]).toEqual([200, 200, SERVING]);
  await threads[0]?.terminate();
  expect(await told).toMatchObject({ message: 'the store thread has ended' });
  expect([await status('/healthz'), await status('/readyz'), await live()]).toEqual([503, 503, NOT_SERVING]);
  await stop().catch(() => {});
});

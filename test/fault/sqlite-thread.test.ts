// If this fails, a server whose embedded store can write no more stays up, looks healthy, and answers nothing.
import type { Worker } from 'node:worker_threads';
import { afterAll, expect, it, vi } from 'vitest';
import { readConfig } from '../../src/config.ts';
import { serve, systemClock } from '../../src/server/serve.ts';
import { createLogger } from '../../src/server/telemetry.ts';
import { freshDatabase } from '../support/server.ts';

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

it('a thread of the store that is gone: /healthz says no, and the process is told to end', async () => {
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
  const status = async (path: string) => (await fetch(`http://127.0.0.1:${ports.http}${path}`)).status;
  expect([await status('/healthz'), await status('/readyz')]).toEqual([200, 200]);
  await threads[0]?.terminate();
  expect(await told).toMatchObject({ message: 'the store thread has ended' });
  expect([await status('/healthz'), await status('/readyz')]).toEqual([503, 503]);
  await stop().catch(() => {});
});

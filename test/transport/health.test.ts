// If this fails, a supervisor restarts processes whose store is away, or leaves one alone that can decide nothing any more.
import { createClient, createRouterTransport } from '@connectrpc/connect';
import { afterEach, describe, expect, it } from 'vitest';
import {
  HealthCheckResponse_ServingStatus,
  Health as HealthService,
} from '../../gen/grpc/health/v1/health_pb.ts';
import { Health } from '../../src/transport/health.ts';

const { SERVING, NOT_SERVING } = HealthCheckResponse_ServingStatus;

describe('the service liveness of health', () => {
  let store = async () => {};
  let health: Health;
  const started = async (ping: () => Promise<void>) => {
    store = ping;
    health = new Health(
      [],
      () => store(),
      () => {},
    );
    await health.start();
    const transport = createRouterTransport((router) => health.addTo(router));
    const client = createClient(HealthService, transport);
    const status = async (service: string) => (await client.check({ service })).status;
    return { client, both: async () => [await status('liveness'), await status('')] };
  };
  afterEach(() => health.stop());

  it('stays SERVING while the store is away, when nothing can be decided', async () => {
    const { both } = await started(() => Promise.reject(new Error('away')));
    expect(await both()).toEqual([SERVING, NOT_SERVING]);
  });

  it('stays SERVING while calls are finished at the end', async () => {
    const { both } = await started(async () => {});
    expect(await both()).toEqual([SERVING, SERVING]);
    health.stop();
    expect(await both()).toEqual([SERVING, NOT_SERVING]);
  });

  it('is NOT_SERVING once only a new process can decide, and whoever watches is told', async () => {
    const { client, both } = await started(async () => {});
    const seen: HealthCheckResponse_ServingStatus[] = [];
    for await (const { status } of client.watch({ service: 'liveness' })) {
      seen.push(status);
      if (status === NOT_SERVING) break;
      health.break();
    }
    expect(seen).toEqual([SERVING, NOT_SERVING]);
    expect(await both()).toEqual([NOT_SERVING, NOT_SERVING]);
  });
});

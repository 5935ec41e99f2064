// If this fails, streams of a guarded gRPC server are open, or its health checks are closed.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { connectNodeAdapter, createGrpcTransport } from '@connectrpc/connect-node';
import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { grpcGuard } from '../../clients/typescript/src/grpc-js.ts';
import { connectGuard, Guard, peerAddress, verdictOf } from '../../clients/typescript/src/index.ts';
import { Health } from '../../gen/grpc/health/v1/health_pb.ts';
import { mintSecret } from '../../src/keys/secret.ts';
import { MisbehavingServer } from '../support/misbehaving-server.ts';

const CHECK = '/grpc.health.v1.Health/Check';
const bytes = (message: Buffer) => message;
const method = (path: string, responseStream: boolean) => ({
  path,
  requestStream: false,
  responseStream,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});

describe('streams', () => {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-guard-'));
  const apikeyd = new MisbehavingServer();
  let guard: Guard;
  let ended: () => void = () => {};
  let handled: string[] = [];
  beforeAll(async () => {
    const keyFile = join(folder, 'guard.key');
    writeFileSync(keyFile, mintSecret());
    guard = new Guard({ address: (await apikeyd.start()).grpc, keyFile, deadlineMs: 20_000 });
    const good = { decision: 'DECISION_VALID', valid: true, keyId: 'the-key' };
    const rateLimits = [{ name: 'm', limit: '9', window: '60s', remaining: '8' }];
    const revoked = { decision: 'DECISION_REVOKED' };
    apikeyd.follow({ replies: [{ byKey: { good: { ...good, rateLimits }, revoked } }] });
  });
  afterEach(() => {
    ended();
    handled = [];
  });
  afterAll(async () => {
    guard.close();
    await apikeyd.stop();
    rmSync(folder, { recursive: true });
  });

  const onConnect = async () => {
    const server = createServer(
      connectNodeAdapter({
        contextValues: peerAddress,
        interceptors: [connectGuard(guard)],
        routes: ({ rpc }) =>
          rpc(Health.method.watch, async function* (_, { values }) {
            handled.push(verdictOf(values).key?.id ?? '');
            yield { status: 1 };
            yield { status: 2 };
          }),
      }),
    );
    ended = () => server.close();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return (server.address() as AddressInfo).port;
  };

  const onGrpcJs = async () => {
    const server = new Server({ interceptors: [grpcGuard(guard, {}, { [CHECK]: 'open' })] });
    const service = {
      check: method(CHECK, false),
      watch: method('/grpc.health.v1.Health/Watch', true),
    };
    server.addService(service, {
      check: (_: unknown, answer: (error: null, message: Buffer) => void) => answer(null, Buffer.alloc(0)),
      watch: (call: ServerWritableStream<Buffer, Buffer>) => {
        handled.push(verdictOf(call.metadata).key?.id ?? '');
        call.write(Buffer.from([8, 1]));
        call.write(Buffer.from([8, 2]));
        call.end();
      },
    });
    ended = () => server.forceShutdown();
    return new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
  };

  const clientOf = (port: number) =>
    createClient(Health, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` }));
  const watch = async (port: number, key: string) => {
    const statuses: number[] = [];
    const limits: (string | null)[] = [];
    const onHeader = (headers: Headers) => void limits.push(headers.get('ratelimit'));
    const headers = { 'x-api-key': key };
    for await (const { status } of clientOf(port).watch({}, { headers, onHeader })) statuses.push(status);
    return { statuses, limits };
  };

  it.each([
    ['Connect', onConnect],
    ['grpc-js', onGrpcJs],
  ])('are guarded in %s like unary calls', async (_, serve) => {
    const port = await serve();
    expect(await watch(port, 'good')).toEqual({ statuses: [1, 2], limits: ['"m";r=8;t=60'] });
    expect(handled).toEqual(['the-key']);
    const refused = await watch(port, 'revoked').catch((error) => ConnectError.from(error));
    expect(refused).toMatchObject({ code: Code.Unauthenticated, rawMessage: 'invalid_token' });
    expect(handled).toEqual(['the-key']);
  });

  it('stay guarded in grpc-js beside an open method', async () => {
    const port = await onGrpcJs();
    await clientOf(port).check({});
    const refused = await watch(port, 'revoked').catch((error) => ConnectError.from(error));
    expect(refused).toMatchObject({ code: Code.Unauthenticated });
    expect(handled).toEqual([]);
  });
});

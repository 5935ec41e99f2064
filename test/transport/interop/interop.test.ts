// If this fails, clients of other makes cannot call: gRPC's own interop client is the judge.
import { execFileSync } from 'node:child_process';
import { create, createFileRegistry, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { ConnectError, type ConnectRouter } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LIMITS } from '../../../src/rpc/limits.ts';
import { ConnectMount } from '../../../src/transport/connect-mount.ts';
import { StreamExchange } from '../../../src/transport/exchange.ts';
import { UnaryExchange } from '../../../src/transport/grpc-mount.ts';
import type { ServerStream } from '../../../src/transport/http2/transport.ts';
import { HttpServer } from '../../../src/transport/listener.ts';
import { StreamThrottle } from '../../../src/transport/stream-throttle.ts';
import type { UnaryRoute } from '../../../src/transport/unary-session.ts';
import { UnfinishedMessages } from '../../../src/transport/unfinished.ts';
import { Unpacking } from '../../../src/transport/unpacking.ts';
import { HTTP2_SERVER_NAMES, HTTP2_SERVERS, type Http2ServerName } from '../../support/http2.ts';
import { run } from '../../support/process.ts';
import { requires } from '../../support/requires.ts';
import { tool } from '../../support/tools.ts';

interface EchoStatus {
  readonly code: number;
  readonly message: string;
}
type Request = Message & {
  readonly responseSize: number;
  readonly responseParameters: readonly { readonly size: number }[];
  readonly responseStatus?: EchoStatus;
  readonly payload?: { readonly body: Uint8Array };
};

const client = tool('interop-client');
const SERVICE = 'grpc.testing.TestService';

const filled = (size: number) => ({ payload: { body: new Uint8Array(size) } });
const throwIf = (status: EchoStatus | undefined) => {
  if (status !== undefined && status.code !== 0) throw new ConnectError(status.message, status.code);
};

/** Unary calls by our own transport, streams by Connect on our HTTP/2. */
function interopServer(http2: Http2ServerName): HttpServer {
  const image = execFileSync(tool('buf'), ['build', 'test/transport/interop', '-o', '-#format=binpb']);
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, image));
  const service = registry.getService(SERVICE);
  if (service === undefined) throw new Error('no service');
  const unary = (
    name: string,
    answer: (request: Request) => Record<string, unknown>,
  ): readonly [string, UnaryRoute] => {
    const method = service.methods.find((each) => each.name === name);
    if (method === undefined) throw new Error(`no ${name}`);
    const route: UnaryRoute = {
      refusal: () => undefined,
      limits: () => ({ bytes: LIMITS.messageBytes, packed: true }),
      begin: () => ({
        authenticate: () => {},
        confirm: async () => {},
        respond: async (read) => {
          const request = fromBinary(method.input, await read()) as Request;
          return toBinary(method.output, create(method.output, answer(request)));
        },
        refuse: async (error) => new ConnectError(error.message),
      }),
    };
    return [`/${SERVICE}/${name}`, route];
  };
  const routes = new Map([
    unary('EmptyCall', () => ({})),
    unary('UnaryCall', ({ responseStatus, responseSize }) => {
      throwIf(responseStatus);
      return filled(responseSize);
    }),
  ]);
  async function* duplex(requests: AsyncIterable<Request>) {
    for await (const { responseStatus, responseParameters } of requests) {
      throwIf(responseStatus);
      for (const { size } of responseParameters) yield filled(size);
    }
  }
  const streams = {
    async *streamingOutputCall({ responseParameters }: Request) {
      for (const { size } of responseParameters) yield filled(size);
    },
    async streamingInputCall(requests: AsyncIterable<Request>) {
      let aggregatedPayloadSize = 0;
      for await (const { payload } of requests) aggregatedPayloadSize += payload?.body.length ?? 0;
      return { aggregatedPayloadSize };
    },
    fullDuplexCall: duplex,
  };
  const incoming = { unfinished: new UnfinishedMessages(), unpacking: new Unpacking() };
  const addStreams = (router: ConnectRouter) => void router.service(service, streams as never);
  const connect = new ConnectMount({} as never, [], incoming, addStreams, LIMITS.messageBytes);
  const stream = (begun: ServerStream) => {
    const route = routes.get(begun.headers.get(':path') ?? '');
    if (route !== undefined) return new UnaryExchange(route, begun, incoming);
    const exchange = new StreamExchange(begun, incoming.unfinished);
    void connect.handle(exchange);
    return exchange;
  };
  return new HttpServer(
    { stream, request: () => {}, failed: (error) => expect.fail(String(error)) },
    new StreamThrottle(),
    undefined,
    HTTP2_SERVERS[http2],
  );
}

for (const http2 of HTTP2_SERVER_NAMES)
  requires('interop-client').describe(`the interop client of grpc-go, with HTTP2_SERVER=${http2}`, () => {
    const server = interopServer(http2);
    let port = 0;
    beforeAll(async () => {
      port = await server.listen('127.0.0.1', 0);
    });
    afterAll(() => server.close());

    it.each([
      'empty_unary',
      'large_unary',
      'client_streaming',
      'server_streaming',
      'ping_pong',
      'empty_stream',
      'timeout_on_sleeping_server',
      'cancel_after_begin',
      'cancel_after_first_response',
      'status_code_and_message',
      'special_status_message',
      'unimplemented_method',
      'unimplemented_service',
    ])('%s', async (name) => {
      const args = ['--server_host=127.0.0.1', `--server_port=${port}`, `--test_case=${name}`];
      const { code, stderr } = await run(client, args);
      expect(code, stderr).toBe(0);
    });
  });

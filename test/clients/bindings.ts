import { createServer as createHttp, type Server as HttpServer } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { connectNodeAdapter, createGrpcTransport } from '@connectrpc/connect-node';
import { Server as GrpcServer, ServerCredentials } from '@grpc/grpc-js';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import { grpcGuard } from '../../clients/typescript/src/grpc-js.ts';
import {
  connectGuard,
  expressGuard,
  fastifyGuard,
  fetchGuard,
  type Guard,
  honoGuard,
  peerAddress,
  type Route,
  type Verdict,
  verdictOf,
} from '../../clients/typescript/src/index.ts';
import { RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { Health, HealthCheckResponse_ServingStatus } from '../../gen/grpc/health/v1/health_pb.ts';

/** The response to a client. */
export interface Told {
  /** Undefined by gRPC. */
  readonly status?: number;
  /** The name of the gRPC code; undefined by HTTP. */
  readonly grpc?: string;
  readonly headers: Readonly<Record<string, string>>;
  /** The body, or the message of a gRPC error. */
  readonly body: string;
}

/** A server with one guarded endpoint. */
export interface Guarded {
  send(headers: Readonly<Record<string, string>>): Promise<Told>;
  stop(): Promise<void>;
}

export interface Binding {
  readonly name: string;
  readonly grpc: boolean;
  /** @param handler called with the verdict that let a request through */
  serve(guard: Guard, route: Route, handler: (verdict: Verdict) => void): Promise<Guarded>;
}

const ADDRESS = '127.0.0.1';
const peer = () => ADDRESS;

async function told(response: Response): Promise<Told> {
  const headers = Object.fromEntries(response.headers);
  return { status: response.status, headers, body: await response.text() };
}

async function overHttp(server: HttpServer): Promise<Guarded> {
  await new Promise<void>((resolve) => server.listen(0, ADDRESS, resolve));
  const { port } = server.address() as AddressInfo;
  return {
    send: async (headers) => told(await fetch(`http://${ADDRESS}:${port}/`, { headers })),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function overGrpc(port: number, stop: () => Promise<void>): Guarded {
  const client = createClient(Health, createGrpcTransport({ baseUrl: `http://${ADDRESS}:${port}` }));
  return {
    send: async (sent) => {
      let headers = {};
      const onHeader = (received: Headers) => {
        headers = Object.fromEntries(received);
      };
      try {
        await client.check({}, { headers: sent, onHeader });
        return { grpc: 'OK', headers, body: '' };
      } catch (thrown) {
        const error = ConnectError.from(thrown);
        const [info] = error.findDetails(RetryInfoSchema);
        const { seconds = 0n, nanos = 0 } = info?.retryDelay ?? {};
        const retryAfter = Math.max(1, Math.ceil(Number(seconds) + nanos / 1e9));
        const retry: Record<string, string> = info === undefined ? {} : { 'retry-after': String(retryAfter) };
        const grpc = (Code[error.code] ?? '').replaceAll(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
        return { grpc, headers: { ...Object.fromEntries(error.metadata), ...retry }, body: error.rawMessage };
      }
    },
    stop,
  };
}

const inFetch: Binding = {
  name: 'fetch',
  grpc: false,
  serve: async (guard, route, handler) => {
    const guarded = fetchGuard(guard, { ...route, peer }, (request) => {
      handler(verdictOf(request));
      return Response.json({});
    });
    return {
      send: async (headers) => told(await guarded(new Request('http://here/', { headers }))),
      stop: async () => {},
    };
  },
};

const inHono: Binding = {
  name: 'Hono',
  grpc: false,
  serve: async (guard, route, handler) => {
    const app = new Hono().get('/', honoGuard(guard, { ...route, peer }), (c) => {
      handler(verdictOf(c.req.raw));
      return c.json({});
    });
    return {
      send: async (headers) => told(await app.fetch(new Request('http://here/', { headers }))),
      stop: async () => {},
    };
  },
};

const inExpress: Binding = {
  name: 'Express',
  grpc: false,
  serve: (guard, route, handler) => {
    const app = express().get('/', expressGuard(guard, route), (request, response) => {
      handler(verdictOf(request));
      response.json({});
    });
    return overHttp(createHttp(app));
  },
};

const inFastify: Binding = {
  name: 'Fastify',
  grpc: false,
  serve: async (guard, route, handler) => {
    const app = fastify().get('/', { onRequest: fastifyGuard(guard, route) }, async (request) => {
      handler(verdictOf(request));
      return {};
    });
    await app.ready();
    return overHttp(createHttp(app.routing));
  },
};

const inConnect: Binding = {
  name: 'Connect',
  grpc: true,
  serve: async (guard, route, handler) => {
    const server = createHttp2(
      connectNodeAdapter({
        contextValues: peerAddress,
        interceptors: [connectGuard(guard, route)],
        routes: ({ rpc }) =>
          rpc(Health.method.check, (_, { values }) => {
            handler(verdictOf(values));
            return { status: HealthCheckResponse_ServingStatus.SERVING };
          }),
      }),
    );
    await new Promise<void>((resolve) => server.listen(0, ADDRESS, resolve));
    return overGrpc((server.address() as AddressInfo).port, async () => void server.close());
  },
};

const bytes = (message: Buffer) => message;
/** A service of grpc-js whose messages are bytes. */
const CHECK = {
  check: {
    path: '/grpc.health.v1.Health/Check',
    requestStream: false,
    responseStream: false,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  },
} as const;

const inGrpcJs: Binding = {
  name: 'grpc-js',
  grpc: true,
  serve: async (guard, route, handler) => {
    const server = new GrpcServer({ interceptors: [grpcGuard(guard, route)] });
    server.addService(CHECK, {
      check: (call: { metadata: object }, answer: (error: null, message: Buffer) => void) => {
        handler(verdictOf(call.metadata));
        answer(null, Buffer.alloc(0));
      },
    });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`${ADDRESS}:0`, ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    return overGrpc(port, async () => server.forceShutdown());
  },
};

export const BINDINGS: readonly Binding[] = [inFetch, inHono, inExpress, inFastify, inConnect, inGrpcJs];

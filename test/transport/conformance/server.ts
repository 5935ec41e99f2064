/**
 * The server that connectconformance asks for: its ConformanceService, by Connect's handlers on our HTTP server. What it
 * must be is read from standard input, where it is is written to standard output. Argument: the image of its protos.
 */
import { readFileSync, readSync, writeSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import {
  create,
  createFileRegistry,
  type DescMessage,
  fromBinary,
  type Message,
  toBinary,
} from '@bufbuild/protobuf';
import { type Any, anyPack, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import {
  type Code,
  ConnectError,
  createConnectRouter,
  createContextValues,
  type HandlerContext,
} from '@connectrpc/connect';
import { compressionGzip } from '@connectrpc/connect-node';
import { type Exchange, RequestExchange, StreamExchange } from '../../../src/transport/exchange.ts';
import type { ServerStream } from '../../../src/transport/http2/transport.ts';
import { HttpServer } from '../../../src/transport/listener.ts';
import { StreamThrottle } from '../../../src/transport/stream-throttle.ts';
import { UnfinishedMessages } from '../../../src/transport/unfinished.ts';
import { HTTP2_SERVERS, type Http2ServerName } from '../../support/http2.ts';

const PACKAGE = 'connectrpc.conformance.v1';
const READ_MAX_BYTES = 200 * 1024;

interface Header {
  readonly name: string;
  readonly value: readonly string[];
}

interface Definition {
  readonly responseHeaders: readonly Header[];
  readonly responseTrailers: readonly Header[];
  readonly responseDelayMs: number;
  /** Of a stream. */
  readonly responseData?: readonly Uint8Array[];
  readonly error?: Failure;
  /** Of a single answer. */
  readonly response?: { readonly case: string | undefined; readonly value: unknown };
}

interface Failure {
  readonly code: number;
  readonly message?: string;
  readonly details: readonly Any[];
}

type Request = Message & { readonly responseDefinition?: Definition; readonly fullDuplex?: boolean };

const image = readFileSync(process.argv[2] ?? '');
const http2 = HTTP2_SERVERS[process.argv[3] as Http2ServerName];
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, image));

function message(name: string): DescMessage {
  const found = registry.getMessage(`${PACKAGE}.${name}`);
  if (found === undefined) throw new Error(`no message ${name}`);
  return found;
}

function typeOf(request: Message): DescMessage {
  return message(request.$typeName.slice(PACKAGE.length + 1));
}

/** What was received, for the client to compare with what it sent. */
function infoOf(requests: readonly Message[], context: HandlerContext) {
  const requestHeaders = [...context.requestHeader].map(([name, value]) => ({ name, value: [value] }));
  const left = context.timeoutMs();
  const get = context.requestMethod === 'GET' ? { connectGetInfo: { queryParams: queryOf(context) } } : {};
  return {
    requestHeaders,
    requests: requests.map((request) => anyPack(typeOf(request), request)),
    ...(left === undefined ? {} : { timeoutMs: BigInt(Math.round(left)) }),
    ...get,
  };
}

function queryOf(context: HandlerContext) {
  return [...new URL(context.url).searchParams].map(([name, value]) => ({ name, value: [value] }));
}

function announce(context: HandlerContext, definition: Definition | undefined): void {
  for (const { name, value } of definition?.responseHeaders ?? [])
    for (const each of value) context.responseHeader.append(name, each);
  for (const { name, value } of definition?.responseTrailers ?? [])
    for (const each of value) context.responseTrailer.append(name, each);
}

function failureOf(failure: Failure, info: ReturnType<typeof infoOf> | undefined): ConnectError {
  const error = new ConnectError(failure.message ?? '', failure.code as Code);
  const details = error.details as unknown[];
  for (const { typeUrl, value } of failure.details) details.push({ type: typeUrl.split('/').at(-1), value });
  if (info !== undefined) {
    const desc = message('ConformancePayload.RequestInfo');
    details.push({ desc, value: create(desc, info as Record<string, unknown>) });
  }
  return error;
}

/** One answer to one or to many requests. */
async function single(requests: readonly Request[], context: HandlerContext) {
  const definition = requests[0]?.responseDefinition;
  announce(context, definition);
  const info = infoOf(requests, context);
  await delay(definition?.responseDelayMs ?? 0);
  const { response } = definition ?? {};
  if (response?.case === 'error') throw failureOf(response.value as Failure, info);
  const data = response?.case === 'responseData' ? { data: response.value } : {};
  return { payload: { ...data, requestInfo: info } };
}

/** Many answers, once all requests are there and the headers are announced. */
async function* many(requests: readonly Request[], context: HandlerContext) {
  const definition = requests[0]?.responseDefinition;
  let told = false;
  for (const data of definition?.responseData ?? []) {
    await delay(definition?.responseDelayMs ?? 0);
    yield { payload: { data, ...(told ? {} : { requestInfo: infoOf(requests, context) }) } };
    told = true;
  }
  if (definition?.error !== undefined)
    throw failureOf(definition.error, told ? undefined : infoOf(requests, context));
}

async function* bidi(incoming: AsyncIterable<Request>, context: HandlerContext) {
  const received: Request[] = [];
  let definition: Definition | undefined;
  let sent = 0;
  for await (const request of incoming) {
    received.push(request);
    if (received.length === 1) {
      definition = request.responseDefinition;
      announce(context, definition);
    }
    if (received[0]?.fullDuplex !== true) continue;
    const data = definition?.responseData?.[sent];
    if (data === undefined) break;
    await delay(definition?.responseDelayMs ?? 0);
    const whole = infoOf([request], context);
    yield { payload: { data, requestInfo: sent === 0 ? whole : { requests: whole.requests } } };
    sent++;
  }
  if (received[0]?.fullDuplex !== true) return yield* many(received, context);
  for (const data of definition?.responseData?.slice(sent) ?? []) {
    await delay(definition?.responseDelayMs ?? 0);
    yield { payload: { data, ...(sent === 0 ? { requestInfo: infoOf(received, context) } : {}) } };
    sent++;
  }
  if (definition?.error !== undefined)
    throw failureOf(definition.error, sent === 0 ? infoOf(received, context) : undefined);
}

const implementation = {
  unary: (request: Request, context: HandlerContext) => single([request], context),
  idempotentUnary: (request: Request, context: HandlerContext) => single([request], context),
  async clientStream(incoming: AsyncIterable<Request>, context: HandlerContext) {
    const requests: Request[] = [];
    for await (const request of incoming) requests.push(request);
    return single(requests, context);
  },
  serverStream(request: Request, context: HandlerContext) {
    announce(context, request.responseDefinition);
    return many([request], context);
  },
  bidiStream: bidi,
};

/** A message with its length before it. */
function readRequest(): Message {
  const read = (bytes: number) => {
    const buffer = Buffer.alloc(bytes);
    for (let at = 0; at < bytes; ) at += readSync(0, buffer, at, bytes - at, null);
    return buffer;
  };
  return fromBinary(message('ServerCompatRequest'), read(read(4).readUInt32BE()));
}

function writeAnswer(answer: object): void {
  const type = message('ServerCompatResponse');
  const bytes = toBinary(type, create(type, answer as never));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  writeSync(1, Buffer.concat([length, bytes]));
}

interface Wanted {
  readonly useTls: boolean;
  readonly clientTlsCert: Uint8Array;
  readonly messageReceiveLimit: number;
  readonly serverCreds?: { readonly cert: Uint8Array; readonly key: Uint8Array };
}

const wanted = readRequest() as Message & Wanted;
const service = registry.getService(`${PACKAGE}.ConformanceService`);
if (service === undefined) throw new Error('no service');
const router = createConnectRouter({
  readMaxBytes: wanted.messageReceiveLimit || READ_MAX_BYTES,
  acceptCompression: [compressionGzip],
  jsonOptions: { registry },
});
router.service(service, implementation as never);
const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

async function answer(exchange: Exchange): Promise<void> {
  const handler = handlers.get(exchange.path);
  try {
    const request = exchange.request(createContextValues());
    await exchange.respond(handler === undefined ? { status: 404 } : await handler(request));
  } catch {
    exchange.abort();
  }
}

const { serverCreds, useTls, clientTlsCert } = wanted;
const tls =
  useTls && serverCreds !== undefined
    ? {
        cert: Buffer.from(serverCreds.cert),
        key: Buffer.from(serverCreds.key),
        clientCa: clientTlsCert.length > 0 ? Buffer.from(clientTlsCert) : undefined,
      }
    : undefined;
const unfinished = new UnfinishedMessages();
const server = new HttpServer(
  {
    stream: (stream: ServerStream) => {
      const exchange = new StreamExchange(stream, unfinished);
      void answer(exchange);
      return exchange;
    },
    request: (request: IncomingMessage, response: ServerResponse) =>
      void answer(new RequestExchange(request, response, unfinished)),
    failed: (error) => process.stderr.write(`${error}\n`),
  },
  new StreamThrottle(),
  tls,
  http2,
);
const port = await server.listen('127.0.0.1', 0);
writeAnswer({ host: '127.0.0.1', port, ...(serverCreds === undefined ? {} : { pemCert: serverCreds.cert }) });
process.on('SIGTERM', () => process.exit(0));

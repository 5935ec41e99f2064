/**
 * A gRPC server that answers ValidateKey and BatchValidateKeys as it is told, for the libraries of clients/: what a script
 * says, what was seen and how a fault looks is written in clients/conformance/README.md. As a program it prints one line
 * of JSON with its two addresses, and ends with SIGTERM.
 */
import { createServer as createControl, type IncomingMessage } from 'node:http';
import {
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo, Server, Socket } from 'node:net';
import { create, fromBinary, fromJson, type JsonObject, toBinary, toJson } from '@bufbuild/protobuf';
import { anyPack, durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import {
  BatchValidateKeysRequestSchema,
  BatchValidateKeysResponseSchema,
  ValidateKeyRequestSchema,
  type ValidateKeyResponse,
  ValidateKeyResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';
import { ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts';

export type Fault = 'silence' | 'drop' | 'garbage' | 'truncated' | 'empty' | 'html' | 'short-batch';

/** How one call is answered; one of the first four is set. */
export interface Reply {
  /** A ValidateKeyResponse in the JSON of protobuf, for each question. `now+30s` is a time. */
  readonly answer?: JsonObject;
  /** The same, by the key that is asked about. */
  readonly byKey?: Readonly<Record<string, JsonObject>>;
  /** The name of a gRPC code. */
  readonly status?: string;
  readonly fault?: Fault;
  /** With `status`: ErrorInfo.reason. */
  readonly reason?: string;
  /** With `status`: RetryInfo, in seconds. */
  readonly retryInfo?: number;
  /** With `status`: no details, as a proxy on the way answers. */
  readonly bare?: boolean;
}

export interface Script {
  /** A call with another key is UNAUTHENTICATED. */
  readonly callingKey?: string;
  /** For each call in turn; the last one for all that follow. */
  readonly replies: readonly Reply[];
}

/** A call that came. */
export interface Seen {
  readonly method: string;
  /** The metadata of this name. */
  readonly authorization: string;
  /** Milliseconds of a monotonic clock. */
  readonly at: number;
  /** The questions in the JSON of protobuf; one for ValidateKey. */
  readonly requests: readonly JsonObject[];
}

const VALIDATE = '/apikey.v1.ApiKeyAuth/ValidateKey';
const BATCH = '/apikey.v1.ApiKeyAuth/BatchValidateKeys';
/** The grpc-timeout values that apikeyd accepts. */
const TIMEOUT = /^\d{1,8}[HMSmun]$/;
const GRPC = { ':status': 200, 'content-type': 'application/grpc+proto' };

export class MisbehavingServer {
  readonly #grpc: Http2Server;
  readonly #control: Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  /** By the client's port: a session does not give its socket away. */
  readonly #sockets = new Map<number | undefined, Socket>();
  #script: Script = { replies: [{ status: 'UNIMPLEMENTED' }] };
  #seen: Seen[] = [];

  constructor() {
    this.#grpc = createServer();
    this.#grpc.on('session', (session) => {
      this.#sessions.add(session);
      session.once('close', () => this.#sessions.delete(session));
      session.on('error', () => {});
    });
    this.#grpc.on('connection', (socket: Socket) => {
      this.#sockets.set(socket.remotePort, socket);
      socket.once('close', () => this.#sockets.delete(socket.remotePort));
    });
    this.#grpc.on('stream', (stream, headers) => void this.#call(stream, headers));
    this.#control = createControl((request, response) => {
      void this.#told(request).then(({ status, body }) => response.writeHead(status).end(body));
    });
  }

  /** @returns the addresses for gRPC and for control, each `127.0.0.1:port` */
  async start(): Promise<{ grpc: string; control: string }> {
    const [grpc, control] = await Promise.all([this.#grpc, this.#control].map(listening));
    return { grpc: grpc ?? '', control: control ?? '' };
  }

  async stop(): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    await Promise.all(
      [this.#grpc, this.#control].map((server) => new Promise((resolve) => server.close(resolve))),
    );
  }

  /** Sets the script, and clears the recorded calls. */
  follow(script: Script): void {
    this.#script = script;
    this.#seen = [];
  }

  get seen(): readonly Seen[] {
    return this.#seen;
  }

  async #told(request: IncomingMessage): Promise<{ status: number; body: string }> {
    const body = (await bytesOf(request)).toString();
    if (request.method === 'GET' && request.url === '/seen')
      return { status: 200, body: JSON.stringify(this.#seen) };
    if (request.method !== 'PUT' || request.url !== '/script') return { status: 404, body: '' };
    try {
      this.follow(JSON.parse(body));
      return { status: 204, body: '' };
    } catch (error) {
      return { status: 400, body: String(error) };
    }
  }

  async #call(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    // The client may be gone in every way there is.
    stream.on('error', () => {});
    const frame = await bytesOf(stream).catch(() => undefined);
    if (frame === undefined) return;
    const method = headers[':path'] ?? '';
    if (method !== VALIDATE && method !== BATCH) return fail(stream, { status: 'UNIMPLEMENTED' });
    const message = frame.subarray(5);
    const requests =
      method === BATCH
        ? fromBinary(BatchValidateKeysRequestSchema, message).requests
        : [fromBinary(ValidateKeyRequestSchema, message)];
    const { callingKey, replies } = this.#script;
    const reply = replies[Math.min(this.#seen.length, replies.length - 1)] ?? {};
    const authorization = headers.authorization ?? '';
    const json = requests.map((request) => toJson(ValidateKeyRequestSchema, request) as JsonObject);
    this.#seen.push({ method, authorization, at: performance.now(), requests: json });
    if (callingKey !== undefined && authorization !== `Bearer ${callingKey}`)
      return fail(stream, { status: 'UNAUTHENTICATED', reason: 'CREDENTIAL_INVALID' });
    if (!TIMEOUT.test(String(headers['grpc-timeout'] ?? '1S')))
      return fail(stream, { status: 'INVALID_ARGUMENT', reason: 'INVALID_REQUEST' });
    if (reply.status !== undefined) return fail(stream, reply);
    const { fault, answer = {}, byKey } = reply;
    if (fault === 'drop') return void this.#sockets.get(stream.session?.socket.remotePort)?.destroy();
    if (fault !== undefined && fault !== 'short-batch') return misbehave(stream, fault);
    const responses = requests.map(({ key }) => answerFrom(byKey?.[key] ?? answer));
    if (fault === 'short-batch') responses.pop();
    const bytes =
      method === BATCH
        ? toBinary(BatchValidateKeysResponseSchema, create(BatchValidateKeysResponseSchema, { responses }))
        : toBinary(ValidateKeyResponseSchema, responses[0] ?? create(ValidateKeyResponseSchema));
    succeed(stream, framed(bytes));
  }
}

function answerFrom(json: JsonObject): ValidateKeyResponse {
  const timed = JSON.stringify(json).replaceAll(/"now([+-][\d.]+)s"/g, (_, seconds: string) =>
    JSON.stringify(new Date(Date.now() + Number(seconds) * 1000)),
  );
  return fromJson(ValidateKeyResponseSchema, JSON.parse(timed));
}

/** @param announced how long the message is said to be */
function framed(message: Uint8Array, announced = message.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(announced, 1);
  return Buffer.concat([head, message]);
}

function succeed(stream: ServerHttp2Stream, bytes: Buffer): void {
  if (stream.destroyed) return;
  stream.respond(GRPC, { waitForTrailers: true });
  stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(bytes);
}

function fail(stream: ServerHttp2Stream, { status = '', reason = 'SCRIPTED', retryInfo, bare }: Reply): void {
  if (stream.destroyed) return;
  const code = codeNamed(status);
  const details = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: 'apikey.v1' }))];
  if (retryInfo !== undefined)
    details.push(
      anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: durationFromMs(retryInfo * 1000) })),
    );
  const message = 'as the script says';
  const bytes = toBinary(StatusSchema, create(StatusSchema, { code, message, details }));
  const binary = { 'grpc-status-details-bin': Buffer.from(bytes).toString('base64').replace(/=+$/, '') };
  const trailers = { 'grpc-status': String(code), 'grpc-message': message, ...(bare ? {} : binary) };
  stream.respond({ ...GRPC, ...trailers }, { endStream: true });
}

function codeNamed(name: string): number {
  const pascal = name
    .toLowerCase()
    .replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const code = Code[(pascal === 'Cancelled' ? 'Canceled' : pascal) as keyof typeof Code];
  if (code === undefined) throw new Error(`no gRPC code is named ${name}`);
  return code;
}

function misbehave(stream: ServerHttp2Stream, fault: Exclude<Fault, 'short-batch' | 'drop'>): void {
  switch (fault) {
    case 'silence':
      return;
    case 'garbage':
      succeed(stream, framed(Buffer.from('ff'.repeat(40), 'hex')));
      return;
    case 'truncated':
      succeed(stream, framed(Buffer.from('080b', 'hex'), 400));
      return;
    case 'empty':
      succeed(stream, Buffer.alloc(0));
      return;
    case 'html':
      stream.respond({ ':status': 404, 'content-type': 'text/html' });
      stream.end('<h1>not found</h1>');
  }
}

async function bytesOf(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function listening(server: Http2Server | Server): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve(`127.0.0.1:${(server.address() as AddressInfo).port}`));
  });
}

if (import.meta.main) {
  const server = new MisbehavingServer();
  process.stdout.write(`${JSON.stringify(await server.start())}\n`);
}

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ContextValues } from '@connectrpc/connect';
import type { UniversalServerRequest, UniversalServerResponse } from '@connectrpc/connect/protocol';
import { universalResponseToNodeResponse } from '@connectrpc/connect-node';
import { ApiError } from '../keys/errors.ts';
import { toConnectError } from '../rpc/errors.ts';
import { tooLarge } from '../rpc/wire.ts';
import { GatheredBytes } from './gathered-bytes.ts';
import { ERROR } from './http2/frames.ts';
import { type Receiver, ResponseHeaders, type ServerStream } from './http2/transport.ts';
import { peerIpOf } from './peer.ts';
import type { UnfinishedMessage, UnfinishedMessages } from './unfinished.ts';

/** The most bytes that a protocol adds around a message. */
const ENVELOPE_BYTES = 64;
/** A placeholder: only the path and the query of a request's URL are used, and its host may be any text. */
const BASE = 'http://localhost';

/** A request of HTTP/1.1 or HTTP/2, with methods to answer it. */
export interface Exchange {
  readonly method: string;
  /** The path without the query. */
  readonly path: string;
  /** The text after the path's `?`. */
  readonly query: string;
  readonly peerIp: string;
  readonly gone: boolean;
  header(name: string): string | undefined;
  /** Reads the whole body, which holds one message of at most this size. Rejects with an ApiError. */
  receive(messageBytes: number): Promise<Uint8Array>;
  /** @param body replaces the request's own body, which is streamed if this is omitted */
  request(values: ContextValues, body?: Uint8Array): UniversalServerRequest;
  /** Resolves when the response is sent. */
  respond(response: UniversalServerResponse): Promise<void>;
  abort(): void;
}

/** A request of HTTP/1.1 for Connect's handlers. */
export class RequestExchange implements Exchange {
  readonly path: string;
  readonly query: string;
  readonly peerIp: string;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #unfinished: UnfinishedMessages;
  readonly #gone = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse, unfinished: UnfinishedMessages) {
    [this.path, this.query] = pathAndQuery(request.url);
    this.peerIp = peerIpOf(request.socket.remoteAddress);
    this.#request = request;
    this.#response = response;
    this.#unfinished = unfinished;
    response.once('close', () => this.#gone.abort());
  }

  get gone(): boolean {
    return this.#gone.signal.aborted;
  }

  get method(): string {
    return this.#request.method ?? '';
  }

  /** All values of a header, as with HTTP/2: Node drops repeated values of some headers, other programs may not. */
  header(name: string): string | undefined {
    return this.#request.headersDistinct[name]?.join(',');
  }

  async receive(messageBytes: number): Promise<Uint8Array> {
    const request = this.#request;
    const gathered = new GatheredBytes();
    const sender = { connection: request.socket, peerIp: this.peerIp };
    let message: UnfinishedMessage | undefined;
    try {
      return await new Promise((resolve, reject) => {
        message = this.#unfinished.begin(sender, headerBytesOf(request), reject);
        request.on('data', (part: Buffer) => {
          if (message?.ended === true) return;
          gathered.add(part);
          message?.grow(part.length);
          if (gathered.length > messageBytes + ENVELOPE_BYTES) reject(tooLarge(messageBytes));
        });
        request.once('end', () => resolve(gathered.bytes));
        request.once('error', () => reject(notReceived()));
        request.once('close', () => reject(notReceived()));
      });
    } finally {
      message?.end();
      request.removeAllListeners('data');
      request.pause();
    }
  }

  request(contextValues: ContextValues, body?: Uint8Array): UniversalServerRequest {
    const request = this.#request;
    return {
      httpVersion: request.httpVersion,
      method: this.method,
      url: new URL(BASE + request.url).toString(),
      header: headersOf(request),
      body: body === undefined ? request : onePart(body),
      signal: this.#gone.signal,
      contextValues,
    };
  }

  respond(response: UniversalServerResponse): Promise<void> {
    // The unread rest of a refused request would be parsed as the next request.
    if (!this.#request.complete) this.#response.setHeader('connection', 'close');
    return universalResponseToNodeResponse(response, this.#response);
  }

  abort(): void {
    this.#response.destroy();
  }
}

/** A stream of HTTP/2 for Connect's handlers. */
export class StreamExchange implements Exchange, Receiver {
  readonly #stream: ServerStream;
  readonly #unfinished: UnfinishedMessages;
  readonly #gone = new AbortController();
  readonly #gathered = new GatheredBytes();
  #message: UnfinishedMessage | undefined;
  /** Bytes without credit to the client yet, because the body was not requested. */
  #uncredited = 0;
  #asked = false;
  #whole = false;
  #failure: ApiError | undefined;
  #wake = () => {};

  constructor(stream: ServerStream, unfinished: UnfinishedMessages) {
    this.#stream = stream;
    this.#unfinished = unfinished;
  }

  get method(): string {
    return this.header(':method') ?? '';
  }

  get path(): string {
    return pathAndQuery(this.header(':path'))[0];
  }

  get query(): string {
    return pathAndQuery(this.header(':path'))[1];
  }

  get peerIp(): string {
    return this.#stream.peerIp;
  }

  get gone(): boolean {
    return this.#gone.signal.aborted;
  }

  header(name: string): string | undefined {
    return this.#stream.headers.get(name);
  }

  async receive(messageBytes: number): Promise<Uint8Array> {
    this.#ask();
    try {
      while (!this.#whole) {
        if (this.#failure !== undefined) throw this.#failure;
        if (this.#gathered.length > messageBytes + ENVELOPE_BYTES) break;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
      if (this.#gathered.length > messageBytes + ENVELOPE_BYTES) throw tooLarge(messageBytes);
      return this.#gathered.take();
    } finally {
      this.#message?.end();
      this.#failure ??= notReceived();
    }
  }

  request(contextValues: ContextValues, body?: Uint8Array): UniversalServerRequest {
    const header = new Headers();
    for (const [name, value] of this.#stream.headers.fields)
      if (!name.startsWith(':')) header.append(name, value);
    return {
      httpVersion: '2.0',
      method: this.method,
      url: new URL(BASE + this.header(':path')).toString(),
      header,
      body: body === undefined ? this.#body() : onePart(body),
      signal: this.#gone.signal,
      contextValues,
    };
  }

  async respond({ status, header, body, trailer }: UniversalServerResponse): Promise<void> {
    const stream = this.#stream;
    const fields = [[':status', String(status)] as const, ...(header ?? [])];
    stream.respond(new ResponseHeaders(fields), body === undefined && trailer === undefined);
    for await (const part of body ?? []) {
      this.#gone.signal.throwIfAborted();
      stream.send(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
      await stream.drained();
    }
    stream.end(trailer === undefined ? undefined : new ResponseHeaders(trailer));
  }

  abort(): void {
    this.#stream.reset(ERROR.CANCEL);
  }

  data(part: Buffer): void {
    if (this.#failure !== undefined) return;
    this.#gathered.add(part);
    this.#uncredited += part.length;
    this.#message?.grow(part.length);
    this.#wake();
  }

  incomplete(): void {
    if (this.#message === undefined) {
      const sender = { connection: this.#stream.owner, peerIp: this.#stream.peerIp };
      this.#message = this.#unfinished.begin(sender, this.#stream.headers.bytes, (error) =>
        this.#fail(error),
      );
      this.#message.grow(this.#gathered.length);
    }
    if (this.#asked) this.#credit();
  }

  end(): void {
    this.#whole = true;
    this.#message?.end();
    this.#wake();
  }

  closed(): void {
    this.#fail(notReceived());
    this.#gone.abort();
    this.#wake();
  }

  #fail(error: ApiError): void {
    this.#failure ??= error;
    this.#message?.end();
    this.#wake();
  }

  /** The body is requested: from now on received bytes are credited to the client. */
  #ask(): void {
    this.#asked = true;
    this.#credit();
  }

  #credit(): void {
    this.#stream.consumed(this.#uncredited);
    this.#uncredited = 0;
  }

  /** Streams the body, for a client that may send more than one message. */
  async *#body(): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      if (this.#gathered.length > 0) {
        const part = this.#gathered.take();
        this.#credit();
        yield part;
      } else if (this.#whole) return;
      else if (this.#failure !== undefined) throw toConnectError(this.#failure, '');
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

function notReceived(): ApiError {
  return new ApiError('REQUEST_NOT_RECEIVED', 'the request did not arrive whole');
}

function headerBytesOf(request: IncomingMessage): number {
  return request.rawHeaders.reduce((sum, text) => sum + text.length, 0);
}

function headersOf(request: IncomingMessage): Headers {
  const headers = new Headers();
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2)
    headers.append(request.rawHeaders[i] ?? '', request.rawHeaders[i + 1] ?? '');
  return headers;
}

async function* onePart(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  if (bytes.length > 0) yield bytes;
}

function pathAndQuery(target = ''): [path: string, query: string] {
  const at = target.indexOf('?');
  return at < 0 ? [target, ''] : [target.slice(0, at), target.slice(at + 1)];
}

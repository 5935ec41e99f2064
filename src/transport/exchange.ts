import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ContextValues } from '@connectrpc/connect';
import type { UniversalServerRequest, UniversalServerResponse } from '@connectrpc/connect/protocol';
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node';
import { LIMITS } from '../rpc/limits.ts';
import { ERROR } from './http2/frames.ts';
import { AnswerHeaders, type Receiver, type ServerStream } from './http2/transport.ts';
import { peerIpOf } from './peer.ts';

/** A request and the way to answer it, of HTTP/1.1 or HTTP/2. */
export interface Exchange {
  readonly method: string;
  /** Without a query. */
  readonly path: string;
  /** What follows the path's `?`. */
  readonly query: string;
  readonly peerIp: string;
  header(name: string): string | undefined;
  request(values: ContextValues): UniversalServerRequest;
  /** Resolves when the answer has been sent. */
  respond(answer: UniversalServerResponse): Promise<void>;
  abort(): void;
}

/** A request of HTTP/1.1 as Connect's handlers take it. */
export class RequestExchange implements Exchange {
  readonly path: string;
  readonly query: string;
  readonly peerIp: string;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;

  constructor(request: IncomingMessage, response: ServerResponse) {
    [this.path, this.query] = pathAndQuery(request.url);
    this.peerIp = peerIpOf(request.socket.remoteAddress);
    this.#request = request;
    this.#response = response;
  }

  get method(): string {
    return this.#request.method ?? '';
  }

  /** As with HTTP/2, all of a name: Node itself drops the second of some headers, which others behind it may read. */
  header(name: string): string | undefined {
    return this.#request.headersDistinct[name]?.join(',');
  }

  request(values: ContextValues): UniversalServerRequest {
    return universalRequestFromNodeRequest(this.#request, this.#response, undefined, values);
  }

  respond(answer: UniversalServerResponse): Promise<void> {
    return universalResponseToNodeResponse(answer, this.#response);
  }

  abort(): void {
    this.#response.destroy();
  }
}

/** A stream of HTTP/2 as Connect's handlers take it. */
export class StreamExchange implements Exchange, Receiver {
  readonly #stream: ServerStream;
  readonly #gone = new AbortController();
  #parts: Buffer[] = [];
  #waiting = 0;
  #whole = false;
  #wake = () => {};

  constructor(stream: ServerStream) {
    this.#stream = stream;
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

  header(name: string): string | undefined {
    return this.#stream.headers.get(name);
  }

  request(contextValues: ContextValues): UniversalServerRequest {
    const header = new Headers();
    for (const [name, value] of this.#stream.headers.fields)
      if (!name.startsWith(':')) header.append(name, value);
    const authority = this.header(':authority') ?? this.header('host') ?? 'localhost';
    return {
      httpVersion: '2.0',
      method: this.header(':method') ?? '',
      url: new URL(this.header(':path') ?? '/', `${this.header(':scheme')}://${authority}`).toString(),
      header,
      body: this.#body(),
      signal: this.#gone.signal,
      contextValues,
    };
  }

  async respond({ status, header, body, trailer }: UniversalServerResponse): Promise<void> {
    const stream = this.#stream;
    const fields = [[':status', String(status)] as const, ...(header ?? [])];
    stream.respond(new AnswerHeaders(fields), body === undefined && trailer === undefined);
    for await (const part of body ?? []) {
      this.#gone.signal.throwIfAborted();
      stream.send(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
      await stream.drained();
    }
    stream.end(trailer === undefined ? undefined : new AnswerHeaders(trailer));
  }

  abort(): void {
    this.#stream.reset(ERROR.CANCEL);
  }

  data(part: Buffer): void {
    this.#waiting += part.length;
    this.#parts.push(part);
    if (this.#waiting > LIMITS.transportBytes) this.#stream.reset(ERROR.ENHANCE_YOUR_CALM);
    this.#wake();
  }

  end(): void {
    this.#whole = true;
    this.#wake();
  }

  closed(): void {
    this.#gone.abort();
    this.#wake();
  }

  async *#body(): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      const part = this.#parts.shift();
      if (part !== undefined) {
        this.#waiting -= part.length;
        yield part;
      } else if (this.#whole) return;
      else if (this.#gone.signal.aborted) throw this.#gone.signal.reason;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

function pathAndQuery(target = ''): [path: string, query: string] {
  const at = target.indexOf('?');
  return at < 0 ? [target, ''] : [target.slice(0, at), target.slice(at + 1)];
}

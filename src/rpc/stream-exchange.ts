import type { ContextValues } from '@connectrpc/connect';
import type { UniversalServerRequest, UniversalServerResponse } from '@connectrpc/connect/protocol';
import { ERROR } from '../http2/frames.ts';
import { encodeHeaders } from '../http2/hpack.ts';
import type { Receiver, ServerStream } from '../http2/stream.ts';
import type { Exchange } from './connect-mount.ts';
import { LIMITS } from './limits.ts';

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

  get path(): string {
    return (this.header(':path') ?? '').split('?', 1)[0] ?? '';
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
    stream.respond(encodeHeaders(fields), body === undefined && trailer === undefined);
    for await (const part of body ?? []) {
      this.#gone.signal.throwIfAborted();
      stream.send(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
      await stream.drained();
    }
    stream.end(trailer === undefined ? undefined : encodeHeaders(trailer));
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

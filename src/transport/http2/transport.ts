/** HTTP/2 as its users see it. `connection.ts` is our own, `../node-http2.ts` is Node's; both give the same. */
import type { Socket } from 'node:net';
import { encodeHeaders } from './hpack.ts';
import type { Patience } from './lateness.ts';

/** Begins a connection on a socket whose first bytes are HTTP/2's preface. */
export type Http2Transport = new (
  socket: Socket,
  peerIp: string,
  limits: ConnectionLimits,
  around: Surroundings,
  /** Milliseconds, by the clock that `tick` tells. */
  now: number,
) => ServerConnection;

export interface ConnectionLimits extends Patience {
  readonly streamsPerConnection: number;
  readonly headerBytes: number;
  /** A peer that gives no window for what waits for it. */
  readonly unreadResponseMs: number;
}

/** What a connection needs of those around it. */
export interface Surroundings {
  begin(stream: ServerStream): Receiver;
  /** Told of what a receiver threw: its stream, or its connection, is ended. */
  failed(error: unknown): void;
  /** So many bytes more, or fewer, of responses wait for their peer; false when they are too many. */
  holdUnread(bytes: number): boolean;
}

/** One connection. */
export interface ServerConnection {
  /** Whether a request is under way. */
  readonly busy: boolean;
  /** Asks the peer to have no more streams at once than these; more are taken up to the first limit. */
  limitStreams(streams: number): void;
  /** Takes no new requests; ends when those under way have ended. */
  shutDownGracefully(): void;
  /** Time has passed: ends a connection whose peer is late with anything that it has begun, or does not answer. */
  tick(now: number): void;
  destroy(): void;
}

/** One request and the way to answer it. Whatever is sent on a stream that is over is dropped. */
export interface ServerStream {
  readonly headers: RequestFields;
  readonly peerIp: string;
  /** Stands for its connection. */
  readonly owner: object;
  /** So much of the body has been dealt with: the peer may send as much again. */
  consumed(bytes: number): void;
  /** A whole response in one piece. */
  respondWhole(response: WholeResponse): void;
  /** The headers; `last` when nothing follows them. */
  respond(headers: ResponseHeaders, last?: boolean): void;
  send(part: Buffer): void;
  /** With trailers, or without. */
  end(trailers?: ResponseHeaders): void;
  reset(code: number): void;
  /** Resolves when what was sent has left, or nobody wants it any more. */
  drained(): Promise<void>;
}

/** Headers of a request; their names are lower-case, and values of one name are one. */
export interface RequestFields {
  /** About what they hold. */
  readonly bytes: number;
  readonly fields: ReadonlyMap<string, string>;
  get(name: string): string | undefined;
}

/** Hears of one request. */
export interface Receiver {
  /** A part of the body. It lies in what the socket gave, so whoever keeps it longer than this read keeps a copy. */
  data(part: Buffer): void;
  /** What could be read has been told, and the body is not whole. */
  incomplete?(): void;
  /** The body is whole. */
  end(): void;
  /** The client has reset the stream, or the connection is gone: nothing can be sent any more. */
  closed(): void;
}

/** A whole response. */
export interface WholeResponse {
  readonly headers: ResponseHeaders;
  readonly body: Buffer;
  readonly trailers: ResponseHeaders;
}

/** Headers or trailers of a response. Those of many responses are made once. */
export class ResponseHeaders {
  readonly fields: readonly (readonly [name: string, value: string])[];
  #block: Buffer | undefined;

  constructor(fields: Iterable<readonly [name: string, value: string]>) {
    this.fields = [...fields];
  }

  /** As HPACK writes them. */
  get block(): Buffer {
    this.#block ??= encodeHeaders(this.fields);
    return this.#block;
  }
}

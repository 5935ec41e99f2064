/** The interface of HTTP/2. `connection.ts` is our own implementation, `../node-http2.ts` uses Node's. */
import type { Socket } from 'node:net';
import { encodeHeaders } from './hpack.ts';
import type { Patience } from './lateness.ts';

/** Creates a connection on a socket whose first bytes are HTTP/2's preface. */
export type Http2Transport = new (
  socket: Socket,
  peerIp: string,
  limits: ConnectionLimits,
  around: Surroundings,
  /** Milliseconds, by the same clock as `tick`. */
  now: number,
) => ServerConnection;

export interface ConnectionLimits extends Patience {
  readonly streamsPerConnection: number;
  readonly headerBytes: number;
  /** How long a response may wait for its peer's window. */
  readonly unreadResponseMs: number;
}

/** The callbacks of a connection to the listener. */
export interface Surroundings {
  begin(stream: ServerStream): Receiver;
  /** Called with an error that a receiver threw; its stream or connection is ended. */
  failed(error: unknown): void;
  /** The bytes of responses that wait for the peer changed by this much; returns false when they are too many. */
  holdUnread(bytes: number): boolean;
}

export interface ServerConnection {
  /** Whether a request is in flight. */
  readonly busy: boolean;
  /** Asks the peer to open at most this many streams at once; up to the first limit more are still accepted. */
  limitStreams(streams: number): void;
  /** Accepts no new requests; ends when those in flight have ended. */
  shutDownGracefully(): void;
  /** Called at each tick: ends a connection whose peer is late or does not answer. */
  tick(now: number): void;
  destroy(): void;
}

/** One request, with methods to answer it. Output on an ended stream is dropped. */
export interface ServerStream {
  readonly headers: RequestFields;
  readonly peerIp: string;
  /** Identifies its connection. */
  readonly owner: object;
  /** Bytes of the body are consumed: the peer may send as many again. */
  consumed(bytes: number): void;
  /** Sends a whole response at once. */
  respondWhole(response: WholeResponse): void;
  /** Sends the headers; `last` when nothing follows them. */
  respond(headers: ResponseHeaders, last?: boolean): void;
  send(part: Buffer): void;
  /** Ends the response, with or without trailers. */
  end(trailers?: ResponseHeaders): void;
  reset(code: number): void;
  /** Resolves when the data sent so far has left, or the stream has ended. */
  drained(): Promise<void>;
}

/** The headers of a request; names are lower-case, repeated values are joined. */
export interface RequestFields {
  /** Their approximate size. */
  readonly bytes: number;
  readonly fields: ReadonlyMap<string, string>;
  get(name: string): string | undefined;
}

/** Receives one request. */
export interface Receiver {
  /** A part of the body, a slice of the socket's chunk: copy it to keep it longer than this read. */
  data(part: Buffer): void;
  /** All bytes read so far were passed to `data`, and the body is incomplete. */
  incomplete?(): void;
  /** The body is complete. */
  end(): void;
  /** The client reset the stream, or the connection ended: nothing can be sent any more. */
  closed(): void;
}

export interface WholeResponse {
  readonly headers: ResponseHeaders;
  readonly body: Buffer;
  readonly trailers: ResponseHeaders;
}

/** Headers or trailers of a response. One object can serve many responses, so it is encoded once. */
export class ResponseHeaders {
  readonly fields: readonly (readonly [name: string, value: string])[];
  #block: Buffer | undefined;

  constructor(fields: Iterable<readonly [name: string, value: string]>) {
    this.fields = [...fields];
  }

  /** The headers encoded by HPACK. */
  get block(): Buffer {
    this.#block ??= encodeHeaders(this.fields);
    return this.#block;
  }
}

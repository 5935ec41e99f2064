import {
  constants,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import { ERROR } from './http2/frames.ts';
import { Lateness, SETTINGS_DUE } from './http2/lateness.ts';
import type {
  ConnectionLimits,
  RequestFields,
  ResponseHeaders,
  ServerConnection,
  ServerStream,
  Surroundings,
  WholeResponse,
} from './http2/transport.ts';

/** The receive window of a connection in bytes, as in our own transport. */
const RECEIVE_WINDOW = 1 << 20;
/** The most unconsumed bytes of a body. */
const STREAM_WINDOW = 65_535;
/** A response is passed to Node in pieces of this size, each after Node has reported that the previous one was sent. */
const PIECE_BYTES = 4_096;
/** The interval for checking whether the end of a response is sent, while the request is incomplete. */
const LET_GO_MS = 20;

/**
 * Keeps the native session of each stream until the stream itself is collected: a session that is collected before a
 * stream that still has fields of an invalid frame (trailers that do not end) aborts the process, up to Node 24.21 at least.
 */
const outlived = new FinalizationRegistry<unknown>(() => {});

/** The HTTP/2 of Node.js, which is nghttp2; docs/design/http2.md has the limits of its own. */
export class NodeHttp2Connection implements ServerConnection {
  readonly #socket: Socket;
  readonly #session: ServerHttp2Session;
  readonly #lateness: Lateness;
  #receivedSettings = false;
  readonly #streams = new Set<NodeStream>();
  readonly #unreadMs: number;
  /** The bytes received when the peer last answered a PING. */
  #answeredAt = 0;
  /** The newest limit, unsent because the peer has not acknowledged the last SETTINGS. */
  #untold: number | undefined;

  constructor(socket: Socket, peerIp: string, limits: ConnectionLimits, around: Surroundings, now: number) {
    this.#lateness = new Lateness(limits, now);
    this.#socket = socket;
    this.#unreadMs = limits.unreadResponseMs;
    const settings = {
      maxConcurrentStreams: limits.streamsPerConnection,
      maxHeaderListSize: limits.headerBytes,
    };
    const session = performServerHandshake(socket, { settings });
    this.#session = session;
    const handle = Object.getOwnPropertySymbols(session).find(({ description }) => description === 'kHandle');
    session.setLocalWindowSize(RECEIVE_WINDOW);
    session.once('remoteSettings', () => {
      this.#receivedSettings = true;
    });
    session.on('localSettings', () => this.#tellLimit());
    session.on('error', () => this.destroy());
    session.on('stream', (stream, _headers, _flags, raw) => {
      // Read here, and not kept in this closure, which the native session keeps alive.
      if (handle !== undefined) outlived.register(stream, Reflect.get(session, handle));
      const served = new NodeStream(stream, fieldsOf(raw), peerIp, session, around);
      this.#streams.add(served);
      stream.once('close', () => this.#streams.delete(served));
      served.serve();
    });
  }

  get busy(): boolean {
    return this.#streams.size > 0;
  }

  limitStreams(streams: number): void {
    this.#untold = streams;
    this.#tellLimit();
  }

  #tellLimit(): void {
    const session = this.#session;
    if (this.#untold === undefined || session.closed || session.destroyed || session.pendingSettingsAck)
      return;
    session.settings({ maxConcurrentStreams: this.#untold });
    this.#untold = undefined;
  }

  shutDownGracefully(): void {
    if (!this.#session.destroyed) this.#session.close();
  }

  tick(now: number): void {
    if (this.#session.destroyed) return;
    const lateness = this.#lateness;
    const begun = this.#receivedSettings ? undefined : SETTINGS_DUE;
    // Node does not report an incomplete frame, but a peer in the middle of one cannot answer a PING.
    const suspect = this.#socket.bytesRead !== this.#answeredAt;
    if (lateness.isOverdue(begun, now) || lateness.isGone(now)) this.destroy();
    else if (lateness.asks(now, suspect)) this.#session.ping(() => this.#answered());
    for (const stream of this.#streams) if (stream.isStalled(now, this.#unreadMs)) stream.reset(ERROR.CANCEL);
  }

  #answered(): void {
    this.#lateness.pong();
    this.#answeredAt = this.#socket.bytesRead;
  }

  destroy(): void {
    this.#session.destroy();
  }
}

class NodeStream implements ServerStream {
  readonly headers: RequestFields;
  readonly peerIp: string;
  readonly owner: object;
  readonly #around: Surroundings;
  readonly #stream: ServerHttp2Stream;
  /** Bytes of the body that are not consumed yet. */
  #unconsumed = 0;
  #remoteOpen = true;
  /** The end of the response was passed to Node, or waits for the pieces before it. */
  #sent = false;
  /** The pieces that wait until Node has sent the current one. */
  #queue: Buffer[] = [];
  #hasPiece = false;
  #trailers: Record<string, string | string[]> = {};
  /** Bytes of the response that wait for the peer's window or for the socket. */
  #unsent = 0;
  /** The first tick since which none of them was sent. */
  #stalledSince: number | undefined;
  #drained: (() => void)[] = [];

  constructor(
    stream: ServerHttp2Stream,
    headers: RequestFields,
    peerIp: string,
    owner: object,
    around: Surroundings,
  ) {
    this.#stream = stream;
    this.owner = owner;
    this.#around = around;
    this.headers = headers;
    this.peerIp = peerIp;
  }

  serve(): void {
    const stream = this.#stream;
    stream.on('error', () => {});
    this.#guarded(() => {
      const receiver = this.#around.begin(this);
      let scheduled = false;
      const incomplete = () => {
        scheduled = false;
        if (this.#remoteOpen && !stream.closed) this.#guarded(() => receiver.incomplete?.());
      };
      const schedule = () => {
        if (!scheduled) setImmediate(incomplete);
        scheduled = true;
      };
      schedule();
      // A copy: Node's part is a slice of the socket's chunk, and would keep the whole chunk alive.
      stream.on('data', (part: Buffer) => {
        this.#unconsumed += part.length;
        if (this.#unconsumed >= STREAM_WINDOW) stream.pause();
        this.#guarded(() => receiver.data(Buffer.from(part)));
        schedule();
      });
      stream.on('end', () => {
        if (stream.aborted) return;
        this.#remoteOpen = false;
        this.#guarded(() => receiver.end());
      });
      stream.on('finish', () => setImmediate(() => this.#letGo()));
      stream.on('close', () => {
        const hasLeft =
          this.#sent && this.#queue.length === 0 && stream.rstCode === constants.NGHTTP2_NO_ERROR;
        const over = hasLeft && !this.#remoteOpen;
        this.#queue = [];
        this.#left(this.#unsent);
        if (!over) this.#guarded(() => receiver.closed());
      });
    });
  }

  /** Resets the stream to stop the rest of the request; any earlier, the reset would overtake the response. */
  #letGo(): void {
    const stream = this.#stream;
    if (!this.#remoteOpen || stream.closed || stream.destroyed) return;
    if (stream.state.localClose === 1) stream.close(constants.NGHTTP2_NO_ERROR);
    else setTimeout(() => this.#letGo(), LET_GO_MS);
  }

  /** When a receiver throws, only its stream is reset. */
  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#around.failed(error);
      this.reset(ERROR.INTERNAL_ERROR);
    }
  }

  get #writable(): boolean {
    return !this.#stream.closed && !this.#stream.destroyed && !this.#stream.writableEnded;
  }

  consumed(bytes: number): void {
    this.#unconsumed -= bytes;
    if (this.#unconsumed < STREAM_WINDOW) this.#stream.resume();
  }

  respondWhole({ headers, body, trailers }: WholeResponse): void {
    this.respond(headers);
    this.send(body);
    this.end(trailers);
  }

  respond(headers: ResponseHeaders, last = false): void {
    const stream = this.#stream;
    if (stream.closed || stream.destroyed || stream.headersSent) return;
    // The headers end a response to HEAD; Node regards it as ended even before them.
    const endStream = last || this.headers.get(':method') === 'HEAD';
    this.#sent = endStream;
    stream.respond(toNode(headers), { endStream, waitForTrailers: !endStream });
    if (!endStream) stream.once('wantTrailers', () => stream.sendTrailers(this.#trailers));
  }

  send(part: Buffer): void {
    if (!this.#writable || this.#sent || part.length === 0) return;
    this.#unsent += part.length;
    for (let at = 0; at < part.length; at += PIECE_BYTES)
      this.#queue.push(part.subarray(at, at + PIECE_BYTES));
    if (this.#around.holdUnread(part.length)) this.#pump();
    else this.reset(ERROR.ENHANCE_YOUR_CALM);
  }

  #pump(): void {
    const piece = this.#hasPiece ? undefined : this.#queue.shift();
    if (piece === undefined || !this.#writable) return;
    this.#hasPiece = true;
    this.#stream.write(piece, () => {
      this.#hasPiece = false;
      this.#left(Math.min(piece.length, this.#unsent));
      this.#pump();
    });
    if (this.#sent && this.#queue.length === 0) this.#stream.end();
  }

  /** Whether no unsent byte was sent for longer than this. */
  isStalled(now: number, ms: number): boolean {
    this.#stalledSince = this.#unsent === 0 ? undefined : (this.#stalledSince ?? now);
    return this.#stalledSince !== undefined && now - this.#stalledSince > ms;
  }

  #left(bytes: number): void {
    if (bytes > 0) this.#around.holdUnread(-bytes);
    this.#unsent -= bytes;
    this.#stalledSince = undefined;
    if (this.#unsent === 0) this.#wake();
  }

  end(trailers?: ResponseHeaders): void {
    if (!this.#writable || this.#sent) return;
    this.#sent = true;
    if (trailers !== undefined) this.#trailers = toNode(trailers);
    if (this.#queue.length === 0) this.#stream.end();
  }

  reset(code: number): void {
    this.#stream.close(code);
  }

  async drained(): Promise<void> {
    if (this.#writable && this.#unsent > 0) await new Promise<void>((resolve) => this.#drained.push(resolve));
  }

  #wake(): void {
    for (const resolve of this.#drained.splice(0)) resolve();
  }
}

/** Reads names and values in turn: Node's own object drops some repeated headers. */
function fieldsOf(raw: readonly string[]): RequestFields {
  const fields = new Map<string, string>();
  let bytes = 0;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name = '', value = ''] = raw.slice(i, i + 2);
    bytes += name.length + value.length;
    const before = fields.get(name);
    fields.set(name, before === undefined ? value : `${before}${name === 'cookie' ? '; ' : ','}${value}`);
  }
  return { fields, bytes, get: (name) => fields.get(name) };
}

/** The headers in Node's form: a repeated header is a list. */
function toNode({ fields }: ResponseHeaders): Record<string, string | string[]> {
  const object: Record<string, string | string[]> = {};
  for (const [name, value] of fields) {
    const before = object[name];
    object[name] = before === undefined ? value : [before, value].flat();
  }
  return object;
}

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

/** Bytes that may be on their way in, over all streams: as our own transport has them. */
const RECEIVE_WINDOW = 1 << 20;
/** Of a body, until somebody has dealt with it. */
const STREAM_WINDOW = 65_535;
/** Node is given an answer in such pieces, one after the other, and tells of each when it has left. */
const PIECE_BYTES = 4_096;
/** How often a stream looks whether the end of its response has left, while the request is not whole. */
const LET_GO_MS = 20;

/** The HTTP/2 of Node.js, which is nghttp2: what it counts and refuses by itself is in docs/design/http2.md. */
export class NodeHttp2Connection implements ServerConnection {
  readonly #socket: Socket;
  readonly #session: ServerHttp2Session;
  readonly #lateness: Lateness;
  #receivedSettings = false;
  readonly #streams = new Set<NodeStream>();
  readonly #unreadMs: number;
  /** How much had arrived when the peer last answered a ping. */
  #answeredAt = 0;
  /** The newest limit that the peer has not been told of, because it owes an acknowledgement. */
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
    session.setLocalWindowSize(RECEIVE_WINDOW);
    session.once('remoteSettings', () => {
      this.#receivedSettings = true;
    });
    session.on('localSettings', () => this.#tellLimit());
    session.on('error', () => this.destroy());
    session.on('stream', (stream, _headers, _flags, raw) => {
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
    // Whether a frame is only half there is not to be seen here; who is in the middle of one cannot answer a ping.
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
  /** Bytes of the body that nobody has dealt with yet. */
  #unconsumed = 0;
  #remoteOpen = true;
  /** The end of the response was given to Node, or waits for the pieces before it. */
  #sent = false;
  /** What waits for the piece that Node has. */
  #queue: Buffer[] = [];
  #hasPiece = false;
  #trailers: Record<string, string | string[]> = {};
  /** Bytes of the answer for which the peer has given no window yet, or which its socket does not take. */
  #unsent = 0;
  /** The first tick at which none of them had left since. */
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
      // A copy: Node's part is a piece of all that the socket gave, and would keep the whole of it.
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

  /** What the client has not sent yet is not wanted any more. Earlier than this, a reset would overtake the response. */
  #letGo(): void {
    const stream = this.#stream;
    if (!this.#remoteOpen || stream.closed || stream.destroyed) return;
    if (stream.state.localClose === 1) stream.close(constants.NGHTTP2_NO_ERROR);
    else setTimeout(() => this.#letGo(), LET_GO_MS);
  }

  /** A receiver that throws loses its stream, and nothing else. */
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
    // A response to HEAD is over with its headers, for Node before it has begun.
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

  /** Nothing of what waits has left for so long. */
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

/** Names and values in turn. Node's own object drops some of those that come twice. */
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

/** As Node takes them: what comes more than once is a list. */
function toNode({ fields }: ResponseHeaders): Record<string, string | string[]> {
  const object: Record<string, string | string[]> = {};
  for (const [name, value] of fields) {
    const before = object[name];
    object[name] = before === undefined ? value : [before, value].flat();
  }
  return object;
}

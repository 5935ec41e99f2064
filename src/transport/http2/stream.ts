import { DEFAULT_WINDOW, FLAG, FRAME, MAX_FRAME } from './frames.ts';
import { ReceiveWindow } from './receive-window.ts';
import type { RequestHeaders } from './request-headers.ts';
import type { Receiver, ResponseHeaders, ServerStream, WholeResponse } from './transport.ts';

/** What a stream needs of its connection. */
export interface StreamConnection {
  /** How much DATA the connection may send now. */
  sendWindow: number;
  /** Whether the socket takes more at once. */
  readonly congested: boolean;
  write(type: number, flags: number, id: number, payload: Uint8Array): void;
  /** Three frames at once: headers, one DATA frame of head and message, trailers. The window allows them. */
  writeWhole(id: number, response: WholeResponse): void;
  /** The stream waits for a window, or for the socket. */
  blocked(stream: Http2Stream): void;
  /** All that was to be sent is sent. */
  finished(stream: Http2Stream): void;
  reset(stream: Http2Stream, code: number): void;
  /** So many bytes more, or fewer, wait in the stream. It may be reset for that. */
  unread(stream: Http2Stream, bytes: number): void;
  /** The peer may send so much more. */
  credit(stream: Http2Stream, bytes: number): void;
}

/** One request and its response, on a connection. */
export class Http2Stream implements ServerStream {
  readonly id: number;
  readonly headers: RequestHeaders;
  readonly peerIp: string;
  readonly #connection: StreamConnection;
  receiver: Receiver | undefined;
  /** How much DATA it may send, and the client may. */
  sendWindow: number;
  readonly receiveWindow = new ReceiveWindow(DEFAULT_WINDOW);
  received = 0;
  /** Bytes of frames for which the peer has no credit yet. */
  unconsumed = 0;
  /** It is on its connection's list of those that this read has begun or continued. */
  touched = false;
  remoteOpen = true;
  localOpen = true;
  headersSent = false;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  /** Of them, those that the connection has been told of. */
  #unread = 0;
  /** The first tick at which nothing of them had left since. */
  #stalledSince: number | undefined;
  #trailers: Buffer | undefined;
  #drained: (() => void)[] = [];

  constructor(
    id: number,
    headers: RequestHeaders,
    peerIp: string,
    connection: StreamConnection,
    sendWindow: number,
  ) {
    this.id = id;
    this.headers = headers;
    this.peerIp = peerIp;
    this.#connection = connection;
    this.sendWindow = sendWindow;
  }

  /** Stands for its connection. */
  get owner(): object {
    return this.#connection;
  }

  /** So much of the body has been dealt with: the peer may send as much again. */
  consumed(bytes: number) {
    if (this.remoteOpen && bytes > 0) this.#connection.credit(this, bytes);
  }

  /** A whole response in one piece, or in as many as the windows ask for. */
  respondWhole(response: WholeResponse) {
    if (!this.localOpen) return;
    const length = response.body.length;
    const fits =
      length <= this.sendWindow && length <= this.#connection.sendWindow && this.#queue.length === 0;
    if (!fits || length > MAX_FRAME) {
      this.respond(response.headers);
      this.send(response.body);
      this.end(response.trailers);
      return;
    }
    this.sendWindow -= length;
    this.#connection.sendWindow -= length;
    this.headersSent = true;
    this.localOpen = false;
    this.#connection.writeWhole(this.id, response);
    this.#connection.finished(this);
  }

  /** The headers; `last` when nothing follows them. */
  respond({ block }: ResponseHeaders, last = false) {
    if (!this.localOpen || this.headersSent) return;
    this.headersSent = true;
    const flags = FLAG.END_HEADERS | (last ? FLAG.END_STREAM : 0);
    this.#connection.write(FRAME.HEADERS, flags, this.id, block);
    if (last) this.#finish();
  }

  send(part: Buffer) {
    if (!this.localOpen || part.length === 0) return;
    this.#queue.push(part);
    this.#queuedBytes += part.length;
    this.pump();
  }

  /** With trailers, or without. */
  end(trailers?: ResponseHeaders) {
    if (!this.localOpen) return;
    this.#trailers = trailers?.block ?? Buffer.alloc(0);
    this.pump();
  }

  reset(code: number) {
    this.#connection.reset(this, code);
  }

  /** Resolves when what was sent has left, or nobody wants it any more. */
  async drained(): Promise<void> {
    if (this.localOpen && (this.#queue.length > 0 || this.#connection.congested)) {
      this.#connection.blocked(this);
      await new Promise<void>((resolve) => this.#drained.push(resolve));
    }
  }

  /** Sends what the windows allow. */
  pump() {
    const connection = this.#connection;
    for (let part = this.#queue[0]; part !== undefined; part = this.#queue[0]) {
      const most = Math.min(part.length, MAX_FRAME, this.sendWindow, connection.sendWindow);
      if (most <= 0 || connection.congested) return this.#wait();
      this.sendWindow -= most;
      connection.sendWindow -= most;
      this.#queuedBytes -= most;
      this.#stalledSince = undefined;
      connection.write(FRAME.DATA, 0, this.id, part.subarray(0, most));
      if (most === part.length) this.#queue.shift();
      else this.#queue[0] = part.subarray(most);
    }
    this.#tellUnread();
    if (!connection.congested) this.#wake();
    const trailers = this.#trailers;
    if (trailers === undefined || !this.localOpen) return;
    if (trailers.length === 0) connection.write(FRAME.DATA, FLAG.END_STREAM, this.id, trailers);
    else connection.write(FRAME.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, this.id, trailers);
    this.#finish();
  }

  /** Nothing can be sent any more. */
  close() {
    this.localOpen = false;
    this.remoteOpen = false;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#tellUnread();
    this.#wake();
  }

  /** Nothing of what waits has left for so long. */
  isStalled(now: number, ms: number): boolean {
    const hasWindow = this.sendWindow > 0 && this.#connection.sendWindow > 0;
    // A stream that waits for its turn on the socket is not its peer's fault.
    if (this.#queuedBytes === 0 || hasWindow) {
      this.#stalledSince = undefined;
      return false;
    }
    this.#stalledSince ??= now;
    return now - this.#stalledSince > ms;
  }

  #wait() {
    this.#connection.blocked(this);
    this.#tellUnread();
  }

  #tellUnread() {
    const more = this.#queuedBytes - this.#unread;
    if (more === 0) return;
    this.#unread = this.#queuedBytes;
    this.#connection.unread(this, more);
  }

  #finish() {
    this.localOpen = false;
    this.#connection.finished(this);
  }

  #wake() {
    for (const resolve of this.#drained.splice(0)) resolve();
  }
}

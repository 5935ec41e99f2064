import { DEFAULT_WINDOW, FLAG, FRAME, MAX_FRAME } from './frames.ts';
import { ReceiveWindow } from './receive-window.ts';
import type { RequestHeaders } from './request-headers.ts';
import type { Receiver, ResponseHeaders, ServerStream, WholeResponse } from './transport.ts';

/** The interface of a connection for its streams. */
export interface StreamConnection {
  /** The bytes of DATA that the connection may send now. */
  sendWindow: number;
  /** Whether the connection has too many unsent bytes to accept more. */
  readonly congested: boolean;
  write(type: number, flags: number, id: number, payload: Uint8Array): void;
  /** Writes headers, one DATA frame and trailers at once. The caller has checked the windows. */
  writeWhole(id: number, response: WholeResponse): void;
  /** The stream waits for a window, or for the socket. */
  blocked(stream: Http2Stream): void;
  /** The whole response is sent. */
  finished(stream: Http2Stream): void;
  reset(stream: Http2Stream, code: number): void;
  /** The stream's waiting bytes changed by this much. The connection may reset the stream. */
  unread(stream: Http2Stream, bytes: number): void;
  /** Lets the peer send this many more bytes. */
  credit(stream: Http2Stream, bytes: number): void;
}

/** One request and its response on a connection. */
export class Http2Stream implements ServerStream {
  readonly id: number;
  readonly headers: RequestHeaders;
  readonly peerIp: string;
  readonly #connection: StreamConnection;
  receiver: Receiver | undefined;
  /** The bytes of DATA that this side may send, and the client. */
  sendWindow: number;
  readonly receiveWindow = new ReceiveWindow(DEFAULT_WINDOW);
  received = 0;
  /** Received bytes of frames that are not credited to the peer yet. */
  unconsumed = 0;
  /** The current read has started or continued this stream's body: it is on its connection's list. */
  touched = false;
  remoteOpen = true;
  localOpen = true;
  headersSent = false;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  /** The queued bytes that were reported to the connection. */
  #unread = 0;
  /** The first tick since which none of them was sent. */
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

  /** Identifies its connection. */
  get owner(): object {
    return this.#connection;
  }

  /** Bytes of the body are consumed: the peer may send as many again. */
  consumed(bytes: number) {
    if (this.remoteOpen && bytes > 0) this.#connection.credit(this, bytes);
  }

  /** Sends a whole response in one piece, or in as many as the windows require. */
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

  /** Sends the headers; `last` when nothing follows them. */
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

  /** Ends the response, with or without trailers. */
  end(trailers?: ResponseHeaders) {
    if (!this.localOpen) return;
    this.#trailers = trailers?.block ?? Buffer.alloc(0);
    this.pump();
  }

  reset(code: number) {
    this.#connection.reset(this, code);
  }

  /** Resolves when the queued data is passed to the socket, or the stream has ended. */
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

  /** Closes both sides and drops unsent data. */
  close() {
    this.localOpen = false;
    this.remoteOpen = false;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#tellUnread();
    this.#wake();
  }

  /** Whether queued bytes have waited for the peer's window longer than this. */
  isStalled(now: number, ms: number): boolean {
    const hasWindow = this.sendWindow > 0 && this.#connection.sendWindow > 0;
    // A wait for the socket is not the fault of this stream's peer.
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

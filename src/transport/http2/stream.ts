import { DEFAULT_WINDOW, FLAG, FRAME, MAX_FRAME } from './frames.ts';
import { ReceiveWindow } from './receive-window.ts';
import type { RequestHeaders } from './request-headers.ts';
import type { Answer, AnswerHeaders, Receiver, ServerStream } from './transport.ts';

/** What a stream needs of its connection. */
export interface StreamConnection {
  /** How much DATA the connection may send now. */
  sendWindow: number;
  /** Whether the socket takes more at once. */
  readonly congested: boolean;
  write(type: number, flags: number, id: number, payload: Uint8Array): void;
  /** Three frames at once: headers, one DATA frame of head and message, trailers. The window allows them. */
  writeAnswer(id: number, answer: Answer): void;
  /** The stream waits for a window, or for the socket. */
  blocked(stream: Http2Stream): void;
  /** All that was to be sent is sent. */
  finished(stream: Http2Stream): void;
  reset(stream: Http2Stream, code: number): void;
}

/** One request and its answer, on a connection. */
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
  remoteOpen = true;
  localOpen = true;
  headersSent = false;
  #queue: Buffer[] = [];
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

  /** A whole answer in one piece, or in as many as the windows ask for. */
  answer(answer: Answer) {
    if (!this.localOpen) return;
    const length = answer.body.length;
    const fits =
      length <= this.sendWindow && length <= this.#connection.sendWindow && this.#queue.length === 0;
    if (!fits || length > MAX_FRAME) {
      this.respond(answer.headers);
      this.send(answer.body);
      this.end(answer.trailers);
      return;
    }
    this.sendWindow -= length;
    this.#connection.sendWindow -= length;
    this.headersSent = true;
    this.localOpen = false;
    this.#connection.writeAnswer(this.id, answer);
    this.#connection.finished(this);
  }

  /** The headers; `last` when nothing follows them. */
  respond({ block }: AnswerHeaders, last = false) {
    if (!this.localOpen || this.headersSent) return;
    this.headersSent = true;
    const flags = FLAG.END_HEADERS | (last ? FLAG.END_STREAM : 0);
    this.#connection.write(FRAME.HEADERS, flags, this.id, block);
    if (last) this.#finish();
  }

  send(part: Buffer) {
    if (!this.localOpen || part.length === 0) return;
    this.#queue.push(part);
    this.pump();
  }

  /** With trailers, or without. */
  end(trailers?: AnswerHeaders) {
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
      if (most <= 0) return connection.blocked(this);
      this.sendWindow -= most;
      connection.sendWindow -= most;
      connection.write(FRAME.DATA, 0, this.id, part.subarray(0, most));
      if (most === part.length) this.#queue.shift();
      else this.#queue[0] = part.subarray(most);
    }
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
    this.#wake();
  }

  #finish() {
    this.localOpen = false;
    this.#connection.finished(this);
  }

  #wake() {
    for (const resolve of this.#drained.splice(0)) resolve();
  }
}

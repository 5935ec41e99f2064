import type { Socket } from 'node:net';
import { FLAG, FRAME, FRAME_HEAD, MAX_FRAME, writeHead } from './frames.ts';
import { settingsPayload, uint32 } from './payloads.ts';
import type { WholeResponse } from './transport.ts';

const FIRST_BYTES = 4_096;
/** Output of one turn of the event loop beyond this size is sent in several writes. */
const MOST_BYTES = 65_536;

/** The output of a connection: gathered during one turn of the event loop, and written at once. */
export class Output {
  readonly #socket: Socket;
  readonly #flushed: () => void;
  #buffer = Buffer.allocUnsafe(FIRST_BYTES);
  #length = 0;
  #scheduled = false;

  /** @param flushed called when the output of a turn is passed to the socket */
  constructor(socket: Socket, flushed: () => void) {
    this.#socket = socket;
    this.#flushed = flushed;
  }

  /** The number of bytes not yet passed to the socket. */
  get length(): number {
    return this.#length;
  }

  /** Reserves bytes in the buffer and returns their offset. They are sent with all output of this turn. */
  #reserve(bytes: number): number {
    if (this.#length + bytes > this.#buffer.length) {
      if (this.#length > MOST_BYTES) this.flush();
      const bigger = Buffer.allocUnsafe(Math.max(2 * this.#buffer.length, this.#length + bytes));
      this.#buffer.copy(bigger, 0, 0, this.#length);
      this.#buffer = bigger;
    }
    const at = this.#length;
    this.#length += bytes;
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#flushLater);
    }
    return at;
  }

  /** Writes a frame; a header block may be longer than a frame. */
  frame(type: number, flags: number, id: number, payload: Uint8Array): void {
    if (payload.length > MAX_FRAME) {
      this.#longHeaders(flags, id, payload);
      return;
    }
    const at = this.#reserve(FRAME_HEAD + payload.length);
    this.#buffer.set(payload, writeHead(this.#buffer, at, payload.length, type, flags, id));
  }

  /** Writes HEADERS, one DATA frame and trailers. */
  wholeResponse(id: number, response: WholeResponse): void {
    const { body } = response;
    const headers = response.headers.block;
    const trailers = response.trailers.block;
    const at = this.#reserve(3 * FRAME_HEAD + headers.length + body.length + trailers.length);
    const to = this.#buffer;
    let end = writeHead(to, at, headers.length, FRAME.HEADERS, FLAG.END_HEADERS, id);
    to.set(headers, end);
    end = writeHead(to, end + headers.length, body.length, FRAME.DATA, 0, id);
    to.set(body, end);
    const last = FLAG.END_HEADERS | FLAG.END_STREAM;
    end = writeHead(to, end + body.length, trailers.length, FRAME.HEADERS, last, id);
    to.set(trailers, end);
  }

  /** Lets the peer send this many more bytes. */
  credit(id: number, bytes: number): void {
    this.frame(FRAME.WINDOW_UPDATE, 0, id, uint32(bytes));
  }

  reset(id: number, code: number): void {
    this.frame(FRAME.RST_STREAM, 0, id, uint32(code));
  }

  /** Sends settings of this side. */
  settings(settings: readonly (readonly [setting: number, value: number])[]): void {
    this.frame(FRAME.SETTINGS, 0, 0, settingsPayload(settings));
  }

  goAway(lastId: number, code: number): void {
    this.frame(FRAME.GOAWAY, 0, 0, Buffer.concat([uint32(lastId), uint32(code)]));
  }

  #longHeaders(flags: number, id: number, payload: Uint8Array): void {
    this.frame(FRAME.HEADERS, flags & ~FLAG.END_HEADERS, id, payload.subarray(0, MAX_FRAME));
    for (let at = MAX_FRAME; at < payload.length; at += MAX_FRAME) {
      const last = at + MAX_FRAME >= payload.length;
      this.frame(FRAME.CONTINUATION, last ? FLAG.END_HEADERS : 0, id, payload.subarray(at, at + MAX_FRAME));
    }
  }

  readonly #flushLater = (): void => {
    this.#scheduled = false;
    this.flush();
    this.#flushed();
  };

  flush(): void {
    if (this.#length === 0) return;
    const bytes = this.#buffer.subarray(0, this.#length);
    // The socket holds these bytes until they are sent, so the next turn needs a new buffer.
    this.#buffer = Buffer.allocUnsafe(Math.min(MOST_BYTES, Math.max(FIRST_BYTES, this.#length)));
    this.#length = 0;
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }
}

import type { Socket } from 'node:net';

const FIRST_BYTES = 4_096;
/** A turn of the loop that answers more than this is sent in several writes. */
const MOST_BYTES = 65_536;

/** What a connection sends: gathered over one turn of the event loop, and written at once. */
export class Output {
  readonly #socket: Socket;
  #buffer = Buffer.allocUnsafe(FIRST_BYTES);
  #length = 0;
  #scheduled = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Room for so many bytes: where they go in `buffer`. They are sent with all others of this turn. */
  reserve(bytes: number): number {
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

  get buffer(): Buffer {
    return this.#buffer;
  }

  readonly #flushLater = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  flush(): void {
    if (this.#length === 0) return;
    const bytes = this.#buffer.subarray(0, this.#length);
    // The socket keeps these bytes until they are gone, so the next turn has a buffer of its own.
    this.#buffer = Buffer.allocUnsafe(Math.min(MOST_BYTES, Math.max(FIRST_BYTES, this.#length)));
    this.#length = 0;
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }
}

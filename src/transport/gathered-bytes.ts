const FIRST_BYTES = 256;

/** Collects bytes in one buffer of their own: a slice of a socket's chunk would keep its 64 KiB alive. */
export class GatheredBytes {
  #buffer: Buffer = Buffer.alloc(0);
  length = 0;

  /** @param most the final length, if known: no larger buffer is allocated in advance. */
  add(part: Uint8Array, most = Number.POSITIVE_INFINITY): void {
    const length = this.length + part.length;
    if (length > this.#buffer.length) {
      const room = Math.max(length, Math.min(most, Math.max(FIRST_BYTES, 2 * this.#buffer.length)));
      const bigger = Buffer.allocUnsafeSlow(room);
      this.#buffer.copy(bigger, 0, 0, this.length);
      this.#buffer = bigger;
    }
    this.#buffer.set(part, this.length);
    this.length = length;
  }

  /** The bytes, without a copy. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.length);
  }

  /** Returns all bytes and starts again empty. */
  take(): Buffer {
    const { bytes } = this;
    this.#buffer = Buffer.alloc(0);
    this.length = 0;
    return bytes;
  }
}

const FIRST_BYTES = 256;

/** Bytes in one piece, copied out of what a socket gave: so a byte holds a byte, and not 64 KiB of its neighbours. */
export class GatheredBytes {
  #buffer: Buffer = Buffer.alloc(0);
  length = 0;

  /** @param most more will never come, so that no more room is made. */
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

  /** Without a copy. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.length);
  }

  /** All that is there; what comes next begins anew. */
  take(): Buffer {
    const { bytes } = this;
    this.#buffer = Buffer.alloc(0);
    this.length = 0;
    return bytes;
  }
}

const LENGTH = 2;
const SCRATCH = Buffer.allocUnsafeSlow(65_536);

/**
 * Writes a protobuf message from its end to its beginning, so that each length is known when it is written. Fields are
 * written in reverse order. Writes one message at a time, without an await in between.
 */
export class BackwardWriter {
  #at = SCRATCH.length;

  /** A position: everything written after it can become the content of a field. */
  get mark(): number {
    return this.#at;
  }

  /** Starts a new message. */
  clear(): void {
    this.#at = SCRATCH.length;
  }

  /** The message; undefined when it did not fit. */
  bytes(): Buffer | undefined {
    return this.#at < 0 ? undefined : Buffer.from(SCRATCH.subarray(this.#at));
  }

  text(field: number, value: string): void {
    const before = this.#at;
    // Nearly all texts are short and ASCII, where a loop is faster than Buffer.
    const start = before - value.length;
    let i = start < 0 ? value.length + 1 : 0;
    for (; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code >= 0x80) break;
      SCRATCH[start + i] = code;
    }
    this.#at = i === value.length ? start : this.#encoded(value);
    this.enclose(field, before);
  }

  #encoded(value: string): number {
    const length = Buffer.byteLength(value);
    const start = this.#at - length;
    if (start >= 0) SCRATCH.write(value, start, length);
    return start;
  }

  number(field: number, value: number): void {
    if (value === 0) return;
    this.#varint(value);
    this.#varint(field * 8);
  }

  /** Encloses everything written since `mark` as the content of a field. */
  enclose(field: number, mark: number): void {
    this.#varint(mark - this.#at);
    this.#varint(field * 8 + LENGTH);
  }

  #varint(value: number): void {
    const bytes = value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : 5;
    this.#at -= bytes;
    if (this.#at < 0) return;
    let rest = value;
    for (let i = 0; i < bytes - 1; i++) {
      SCRATCH[this.#at + i] = (rest & 0x7f) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    SCRATCH[this.#at + bytes - 1] = rest;
  }
}

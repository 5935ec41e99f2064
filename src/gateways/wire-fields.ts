/** The bytes are not a valid message. */
export class Malformed extends Error {}

const VARINT = 0;
const FIXED_64 = 1;
const LENGTH = 2;
const FIXED_32 = 5;

/** Iterates over the fields of a protobuf message in place. Yields length-delimited fields and skips all others. */
export class WireFields {
  readonly #bytes: Buffer;
  #at = 0;
  #end = 0;
  /** The number of the current field. */
  number = 0;
  /** The bounds of the current field's content; before the first field, those of the message. */
  start = 0;
  stop = 0;

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.enter(start, end);
  }

  /** Switches to another message in the same bytes. */
  enter(start: number, end: number): this {
    this.#at = start;
    this.#end = end;
    this.start = start;
    this.stop = end;
    return this;
  }

  /** Moves to the next length-delimited field; false at the end. @throws Malformed */
  next(): boolean {
    while (this.#at < this.#end) {
      const tag = this.#varint();
      const wire = tag & 7;
      this.number = Math.floor(tag / 8);
      if (this.number === 0) throw new Malformed();
      if (wire === LENGTH) {
        const length = this.#varint();
        this.start = this.#at;
        this.stop = this.#at + length;
        if (this.stop > this.#end) throw new Malformed();
        this.#at = this.stop;
        return true;
      }
      if (wire === VARINT) this.#varint();
      else if (wire === FIXED_64) this.#at += 8;
      else if (wire === FIXED_32) this.#at += 4;
      else throw new Malformed();
    }
    if (this.#at > this.#end) throw new Malformed();
    return false;
  }

  /** The current field's content as text. */
  text(): string {
    return this.#bytes.toString('utf8', this.start, this.stop);
  }

  #varint(): number {
    const first = this.#at < this.#end ? (this.#bytes[this.#at] ?? 0) : 0x80;
    if (first < 0x80) {
      this.#at++;
      return first;
    }
    let value = 0;
    for (let scale = 1; scale <= 2 ** 63; scale *= 128) {
      const byte = this.#at < this.#end ? (this.#bytes[this.#at++] ?? 0) : 0x80;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      if (this.#at >= this.#end) break;
    }
    throw new Malformed();
  }
}

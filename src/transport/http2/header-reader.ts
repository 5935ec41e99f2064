import { excessiveLoad, FLAG, FRAME, protocolError } from './frames.ts';
import { HpackDecoder } from './hpack.ts';
import type { Begun } from './lateness.ts';
import { blockOf } from './payloads.ts';
import { RequestHeaders } from './request-headers.ts';

/** The longest block that is remembered, in bytes. */
const MAX_MEMO = 512;

/** The complete headers of a stream. */
export interface HeaderBlock {
  readonly id: number;
  readonly endStream: boolean;
  readonly headers: RequestHeaders;
}

/** Assembles header blocks and decodes them. */
export class HeaderReader {
  readonly #most: number;
  readonly #hpack = new HpackDecoder();
  /** A block that continues in CONTINUATION frames. */
  #begun: { readonly id: number; readonly endStream: boolean; parts: Buffer[]; bytes: number } | undefined;
  #memo: { readonly block: Buffer; readonly version: number; readonly headers: RequestHeaders } | undefined;

  /** @param most the most bytes of a block, and of the decoded headers */
  constructor(most: number) {
    this.#most = most;
  }

  /** The incomplete block, if there is one. */
  get begun(): Begun | undefined {
    return this.#begun === undefined ? undefined : { kind: 'headers', name: this.#begun.id };
  }

  /** An incomplete block must continue before any other frame. @throws ConnectionError */
  expects(type: number, id: number): void {
    if (this.#begun !== undefined && (type !== FRAME.CONTINUATION || id !== this.#begun.id))
      throw protocolError('a header block that does not go on');
  }

  /** @throws ConnectionError, HpackError */
  headers(flags: number, id: number, payload: Buffer): HeaderBlock | undefined {
    if (id === 0) throw protocolError('HEADERS without a stream');
    const block = blockOf(flags, id, payload);
    const endStream = (flags & FLAG.END_STREAM) !== 0;
    if ((flags & FLAG.END_HEADERS) !== 0) return { id, endStream, headers: this.#read(block) };
    this.#begun = { id, endStream, parts: [Buffer.from(block)], bytes: block.length };
    return undefined;
  }

  /** @throws ConnectionError, HpackError */
  continuation(flags: number, payload: Buffer): HeaderBlock | undefined {
    const begun = this.#begun;
    if (begun === undefined) throw protocolError('CONTINUATION of nothing');
    begun.parts.push(Buffer.from(payload));
    begun.bytes += payload.length;
    if (begun.bytes > this.#most) throw excessiveLoad('headers without end');
    if ((flags & FLAG.END_HEADERS) === 0) return undefined;
    this.#begun = undefined;
    const { id, endStream } = begun;
    return { id, endStream, headers: this.#read(Buffer.concat(begun.parts, begun.bytes)) };
  }

  /** Reuses the last headers for equal bytes while the table is unchanged: most calls of a client are alike. */
  #read(block: Buffer): RequestHeaders {
    const memo = this.#memo;
    if (memo !== undefined && memo.version === this.#hpack.version && memo.block.equals(block))
      return memo.headers;
    const headers = new RequestHeaders(this.#most);
    const before = this.#hpack.version;
    this.#hpack.decode(block, (field) => headers.add(field));
    const { version } = this.#hpack;
    if (block.length <= MAX_MEMO && version === before)
      this.#memo = { block: Buffer.from(block), version, headers };
    return headers;
  }
}

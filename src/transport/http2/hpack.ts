import { HeaderField } from './header-field.ts';
import { huffmanDecode } from './huffman.ts';

/** The largest dynamic table that our SETTINGS allow a peer, by HPACK's count: the protocol's default. */
const MAX_TABLE_BYTES = 4096;
/** The largest shift of the last seven bits of an integer. */
const MAX_SHIFT = 21;

/** RFC 7541, appendix A. */
const STATIC_TABLE = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  ...['200', '204', '206', '304', '400', '404', '500'].map((status) => [':status', status] as const),
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ...[
    'accept-language',
    'accept-ranges',
    'accept',
    'access-control-allow-origin',
    'age',
    'allow',
    'authorization',
    'cache-control',
    'content-disposition',
    'content-encoding',
    'content-language',
    'content-length',
    'content-location',
    'content-range',
    'content-type',
    'cookie',
    'date',
    'etag',
    'expect',
    'expires',
    'from',
    'host',
    'if-match',
    'if-modified-since',
    'if-none-match',
    'if-range',
    'if-unmodified-since',
    'last-modified',
    'link',
    'location',
    'max-forwards',
    'proxy-authenticate',
    'proxy-authorization',
    'range',
    'referer',
    'refresh',
    'retry-after',
    'server',
    'set-cookie',
    'strict-transport-security',
    'transfer-encoding',
    'user-agent',
    'vary',
    'via',
    'www-authenticate',
  ].map((name) => [name, ''] as const),
] as const;
const STATIC = STATIC_TABLE.map(([name, value]) => HeaderField.of(name, value));

/** The block is not valid HPACK: the connection must end, as its table is no longer in sync. */
export class HpackError extends Error {}

/** Decodes the header blocks of one connection in the order of their arrival (RFC 7541). */
export class HpackDecoder {
  /** The dynamic table, newest entry last. */
  readonly #entries: HeaderField[] = [];
  #bytes = 0;
  #maxBytes = MAX_TABLE_BYTES;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Changes with the table: while it is equal, equal bytes mean equal fields. */
  version = 0;

  /** @throws HpackError */
  decode(block: Buffer, found: (field: HeaderField) => void): void {
    this.#block = block;
    this.#at = 0;
    let begun = false;
    while (this.#at < block.length) {
      const first = block[this.#at] ?? 0;
      if (first >= 0x80) {
        found(this.#entry(this.#integer(7)));
      } else if (first >= 0x20 && first < 0x40) {
        if (begun) throw new HpackError('a table size in the middle of a block');
        this.#resize(this.#integer(5));
        continue;
      } else {
        const indexed = first >= 0x40;
        const index = this.#integer(indexed ? 6 : 4);
        const field =
          index === 0
            ? HeaderField.of(this.#string(), this.#string())
            : this.#entry(index).with(this.#string());
        if (indexed) this.#add(field);
        found(field);
      }
      begun = true;
    }
  }

  #entry(index: number): HeaderField {
    const found =
      index <= STATIC.length
        ? STATIC[index - 1]
        : this.#entries[this.#entries.length - (index - STATIC.length)];
    if (found === undefined) throw new HpackError('no such entry');
    return found;
  }

  #add(field: HeaderField): void {
    this.version++;
    this.#entries.push(field);
    this.#bytes += field.bytes;
    this.#evict();
  }

  #resize(bytes: number): void {
    if (bytes > MAX_TABLE_BYTES) throw new HpackError('a table larger than allowed');
    this.version++;
    this.#maxBytes = bytes;
    this.#evict();
  }

  #evict(): void {
    while (this.#bytes > this.#maxBytes) this.#bytes -= this.#entries.shift()?.bytes ?? 0;
  }

  #integer(prefixBits: number): number {
    const mask = 2 ** prefixBits - 1;
    let value = (this.#block[this.#at++] ?? 0) & mask;
    if (value < mask) return value;
    for (let shift = 0; shift <= MAX_SHIFT; shift += 7) {
      const byte = this.#block[this.#at++];
      if (byte === undefined) throw new HpackError('an integer cut off');
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new HpackError('an integer too large');
  }

  #string(): string {
    const coded = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#block.length) throw new HpackError('a string cut off');
    this.#at = end;
    if (!coded) return this.#block.toString('latin1', start, end);
    const text = huffmanDecode(this.#block, start, end);
    if (text === undefined) throw new HpackError('a string wrongly coded');
    return text;
  }
}

/** Encodes a header block that does not change the peer's table. Names must be lower-case, values ASCII. */
export function encodeHeaders(fields: Iterable<readonly [name: string, value: string]>): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of fields) {
    const whole = STATIC.findIndex((entry) => entry.name === name && entry.value === value);
    if (whole >= 0 && value !== '') {
      parts.push(Buffer.from([0x80 | (whole + 1)]));
      continue;
    }
    const index = STATIC.findIndex((entry) => entry.name === name) + 1;
    parts.push(integer(index, 4));
    if (index === 0) parts.push(integer(name.length, 7), Buffer.from(name, 'latin1'));
    parts.push(integer(value.length, 7), Buffer.from(value, 'latin1'));
  }
  return Buffer.concat(parts);
}

function integer(value: number, prefixBits: number): Buffer {
  const mask = 2 ** prefixBits - 1;
  if (value < mask) return Buffer.from([value]);
  const bytes = [mask];
  let rest = value - mask;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  return Buffer.from([...bytes, rest]);
}

/** HPACK counts each entry as so much more than its name and value. */
const OVERHEAD = 32;

const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** No CR, LF, NUL or other control characters; other bytes are the value's own business. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const BAD_VALUE = /[\0-\x08\x0a-\x1f\x7f]/;
const PSEUDO = new Set([':method', ':path', ':scheme', ':authority']);
const OF_THE_CONNECTION = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);

/** A name, checked as RFC 9113 section 8 asks. */
class HeaderName {
  readonly text: string;
  readonly pseudo: boolean;
  readonly wellFormed: boolean;

  constructor(text: string) {
    this.text = text;
    this.pseudo = text.startsWith(':');
    this.wellFormed = this.pseudo ? PSEUDO.has(text) : NAME.test(text) && !OF_THE_CONNECTION.has(text);
  }
}

/** One header. It is checked when it is made: most come again and again, as entries of a table. */
export class HeaderField {
  readonly value: string;
  readonly wellFormed: boolean;
  /** As HPACK counts it. */
  readonly bytes: number;
  readonly #name: HeaderName;

  private constructor(name: HeaderName, value: string) {
    this.#name = name;
    this.value = value;
    this.wellFormed =
      name.wellFormed && !BAD_VALUE.test(value) && (name.text !== 'te' || value === 'trailers');
    this.bytes = name.text.length + value.length + OVERHEAD;
  }

  static of(name: string, value: string): HeaderField {
    return new HeaderField(new HeaderName(name), value);
  }

  /** Another of this name. */
  with(value: string): HeaderField {
    return new HeaderField(this.#name, value);
  }

  get name(): string {
    return this.#name.text;
  }

  /** Of the request line, as `:path` is. */
  get pseudo(): boolean {
    return this.#name.pseudo;
  }
}

/** HPACK's overhead of an entry beyond its name and value, in bytes. */
const OVERHEAD = 32;

const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** Control characters, CR, LF and NUL among them, are refused; all other bytes are allowed. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the expression must find them.
const BAD_VALUE = /[\0-\x08\x0a-\x1f\x7f]/;
const PSEUDO = new Set([':method', ':path', ':scheme', ':authority']);
const OF_THE_CONNECTION = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);

/** A name, checked by RFC 9113 section 8. */
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

/** One header, checked when it is created: most headers are reused as entries of a table. */
export class HeaderField {
  readonly value: string;
  readonly wellFormed: boolean;
  /** Its size by HPACK's rule. */
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

  /** A header of the same name with another value. */
  with(value: string): HeaderField {
    return new HeaderField(this.#name, value);
  }

  get name(): string {
    return this.#name.text;
  }

  /** Whether this is a pseudo-header such as `:path`. */
  get pseudo(): boolean {
    return this.#name.pseudo;
  }
}

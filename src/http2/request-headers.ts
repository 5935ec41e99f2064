import { ENTRY_OVERHEAD } from './hpack.ts';

const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** No CR, LF, NUL or other control characters; other bytes are the value's own business. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const BAD_VALUE = /[\0-\x08\x0a-\x1f\x7f]/;
const OF_THE_CONNECTION = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);
const PSEUDO = new Set([':method', ':path', ':scheme', ':authority']);

/** The headers of a request as they are read, checked as RFC 9113 section 8 asks. */
export class RequestHeaders {
  readonly fields = new Map<string, string>();
  readonly #most: number;
  #bytes = 0;
  #regular = false;
  #malformed = false;

  /** @param most bytes that are kept: what a block names again and again must not fill the memory. */
  constructor(most: number) {
    this.#most = most;
  }

  add(name: string, value: string): void {
    this.#bytes += name.length + value.length + ENTRY_OVERHEAD;
    if (this.tooLarge) return;
    const pseudo = name.startsWith(':');
    if (pseudo) this.#malformed ||= this.#regular || !PSEUDO.has(name) || this.fields.has(name);
    else {
      this.#regular = true;
      this.#malformed ||=
        !NAME.test(name) || OF_THE_CONNECTION.has(name) || (name === 'te' && value !== 'trailers');
    }
    this.#malformed ||= BAD_VALUE.test(value);
    const before = this.fields.get(name);
    this.fields.set(
      name,
      before === undefined ? value : `${before}${name === 'cookie' ? '; ' : ','}${value}`,
    );
  }

  get(name: string): string | undefined {
    return this.fields.get(name);
  }

  get tooLarge(): boolean {
    return this.#bytes > this.#most;
  }

  get wellFormed(): boolean {
    const path = this.get(':path');
    return (
      !this.#malformed &&
      this.get(':method') !== undefined &&
      this.get(':scheme') !== undefined &&
      path !== undefined &&
      path !== ''
    );
  }

  /** Of trailers. */
  get wellFormedTrailers(): boolean {
    return !this.#malformed && ![...PSEUDO].some((name) => this.fields.has(name));
  }

  /** What the body must be long; undefined when it was not said, NaN when it is no number. */
  get contentLength(): number | undefined {
    const said = this.get('content-length');
    if (said === undefined) return undefined;
    return /^\d{1,15}$/.test(said) ? Number(said) : Number.NaN;
  }
}

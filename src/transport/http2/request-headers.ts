import type { HeaderField } from './header-field.ts';

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

  add(field: HeaderField): void {
    this.#bytes += field.bytes;
    if (this.tooLarge) return;
    const { name, value } = field;
    const before = this.fields.get(name);
    if (!field.wellFormed) this.#malformed = true;
    if (!field.pseudo) this.#regular = true;
    else if (this.#regular || before !== undefined) this.#malformed = true;
    this.fields.set(
      name,
      before === undefined ? value : `${before}${name === 'cookie' ? '; ' : ','}${value}`,
    );
  }

  get(name: string): string | undefined {
    return this.fields.get(name);
  }

  /** As HPACK counts them. */
  get bytes(): number {
    return this.#bytes;
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
    return !this.#malformed && ![...this.fields.keys()].some((name) => name.startsWith(':'));
  }

  /** What the body must be long; undefined when it was not said, NaN when it is no number. */
  get contentLength(): number | undefined {
    const said = this.get('content-length');
    if (said === undefined) return undefined;
    return /^\d{1,15}$/.test(said) ? Number(said) : Number.NaN;
  }
}

import type { HeaderField } from './header-field.ts';

/** Collects the headers of a request, checked by RFC 9113 section 8. */
export class RequestHeaders {
  readonly fields = new Map<string, string>();
  readonly #most: number;
  #bytes = 0;
  #regular = false;
  #malformed = false;

  /** @param most the most bytes stored: a block that refers to one entry many times must not fill the memory */
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

  /** The size by HPACK's rule. */
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

  /** Whether the headers are well formed as trailers. */
  get wellFormedTrailers(): boolean {
    return !this.#malformed && ![...this.fields.keys()].some((name) => name.startsWith(':'));
  }

  /** The declared length of the body; undefined when absent, NaN when it is not a number. */
  get contentLength(): number | undefined {
    const said = this.get('content-length');
    if (said === undefined) return undefined;
    return /^\d{1,15}$/.test(said) ? Number(said) : Number.NaN;
  }
}

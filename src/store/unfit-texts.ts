import { isFit } from '../keys/text.ts';
import type { Finding } from './store.ts';

/** How many keys a finding names; the others are only counted. */
const MAX_NAMED = 20;

/** A key's texts by field name; for a map all its keys and values are checked. */
export type KeyTexts = readonly [
  id: string,
  texts: Readonly<Record<string, string | Readonly<Record<string, string>>>>,
];

/** Finds stored texts that are refused today: another program may take one for the text of another key. */
export class UnfitTexts {
  readonly #named: string[] = [];
  #keys = 0;
  #found = 0;

  add([id, texts]: KeyTexts): void {
    this.#keys++;
    const fields = Object.entries(texts).flatMap(([field, text]) => {
      const all = typeof text === 'string' ? [text] : Object.entries(text).flat();
      return all.every(isFit) ? [] : [field];
    });
    if (fields.length === 0) return;
    this.#found++;
    if (this.#named.length < MAX_NAMED) this.#named.push(`${id} (${fields.join(', ')})`);
  }

  get finding(): Finding {
    const what = 'texts';
    if (this.#found === 0) return { what, ok: true, text: `no control characters in ${this.#keys} keys` };
    const more = this.#found > MAX_NAMED ? ` and ${this.#found - MAX_NAMED} more` : '';
    const told = `control characters in ${this.#named.join(', ')}${more}`;
    return { what, ok: false, text: `${told}: give them other values with "apikeyd api-key update"` };
  }
}

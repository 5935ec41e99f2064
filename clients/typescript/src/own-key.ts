import { readFileSync } from 'node:fs';

/** How long a key that was read from the file may be used. */
const LOOK_MS = 1000;
/** The characters that a header can hold; a text with others, or a longer one, is no key. */
const KEY = /^[\x21-\x7e]{1,1024}$/;

/** The guard's own key, from a file that is read again, since a rotation replaces the file. */
export class OwnKey {
  readonly #path: string;
  #key: string;
  #looked: number;

  /** @throws Error when the file contains no key; the text names the file and quotes nothing from it */
  constructor(path: string) {
    const key = readKey(path);
    if (key === undefined) throw new Error(`no key can be read from ${path}`);
    this.#path = path;
    this.#key = key;
    this.#looked = performance.now();
  }

  /** The key of the file, at most a second old. A missing, empty or unreadable file leaves the key unchanged. */
  get current(): string {
    if (performance.now() - this.#looked >= LOOK_MS) this.#look();
    return this.#key;
  }

  /** Call when the server refused the key. @returns whether the file now has another one */
  refused(key: string): boolean {
    this.#look();
    return this.#key !== key;
  }

  #look(): void {
    this.#looked = performance.now();
    this.#key = readKey(this.#path) ?? this.#key;
  }
}

function readKey(path: string): string | undefined {
  try {
    const text = readFileSync(path, 'utf8').trim();
    return KEY.test(text) ? text : undefined;
  } catch {
    return undefined;
  }
}

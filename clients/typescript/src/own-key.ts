import { readFileSync } from 'node:fs';

/** How old the answer of the last look into the file may be. */
const LOOK_MS = 1000;
/** What can stand in a header; a longer or an odd one is no key. */
const KEY = /^[\x21-\x7e]{1,1024}$/;

/** The guard's own key, from a file that is read again: whoever rotates the key replaces the file. */
export class OwnKey {
  readonly #path: string;
  #key: string;
  #looked: number;

  /** @throws Error that names the file when there is no key in it, and nothing of what is in it */
  constructor(path: string) {
    const key = readKey(path);
    if (key === undefined) throw new Error(`no key can be read from ${path}`);
    this.#path = path;
    this.#key = key;
    this.#looked = performance.now();
  }

  /** The key of the file, at most a second old. One that is gone, empty or unreadable changes nothing. */
  get current(): string {
    if (performance.now() - this.#looked >= LOOK_MS) this.#look();
    return this.#key;
  }

  /** This key was refused. @returns whether the file has another one now */
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

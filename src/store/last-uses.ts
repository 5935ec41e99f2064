import type { KeyStore, LastUses } from '../keys/ports/key-store.ts';
import type { Warn } from './store.ts';

const FLUSH_MS = 1_000;
/** The most keys noted per second; uses of further keys are not noted. */
const MAX_KEYS = 50_000;

/** Collects the last VALID use of each key and writes them once a second, off the path of the call. */
export class BufferedLastUses implements LastUses {
  readonly #keys: KeyStore;
  readonly #warn: Warn;
  #uses = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(keys: KeyStore, warn: Warn) {
    this.#keys = keys;
    this.#warn = warn;
  }

  note(keyId: string, time: number): void {
    if (this.#uses.size >= MAX_KEYS && !this.#uses.has(keyId)) return;
    this.#uses.set(keyId, time);
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS).unref();
  }

  /** Writes the noted uses. A failed write is reported and its uses dropped: the next use of a key notes it again. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(async () => {
      const uses = this.#uses;
      if (uses.size === 0) return;
      this.#uses = new Map();
      try {
        await this.#keys.writeLastUses(uses);
      } catch (error) {
        this.#warn('last uses could not be written', error);
      }
    });
    return this.#writing;
  }
}

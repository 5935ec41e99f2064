import { LRUCache } from 'lru-cache';
import type { Clock } from '../keys/ports/clock.ts';

const MAX_ADDRESSES = 100_000;

/**
 * The locked addresses this process knows of, for look-ups without I/O. The shared counter refuses an evicted address
 * at its next failure. Time is monotonic: no lock lasts longer because the wall clock was set back.
 */
export class LockedAddresses {
  readonly #until = new LRUCache<string, number>({ max: MAX_ADDRESSES });
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  lock(ip: string, forMs: number): void {
    this.#until.set(ip, this.#clock.monotonic() + forMs);
  }

  unlock(ip: string): void {
    this.#until.delete(ip);
  }

  /** Replaces all locks by the store's: each address with its milliseconds left. All other addresses are free. */
  replaceAll(locked: Iterable<readonly [string, number]>): void {
    // Clearing an empty LRUCache costs as much as clearing a full one.
    if (this.#until.size > 0) this.#until.clear();
    for (const [ip, leftMs] of locked) this.lock(ip, leftMs);
  }

  forMs(ip: string): number {
    const until = this.#until.size === 0 ? undefined : this.#until.get(ip);
    return until === undefined ? 0 : Math.max(0, until - this.#clock.monotonic());
  }
}

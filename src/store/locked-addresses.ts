import { LRUCache } from 'lru-cache';
import type { Clock } from '../keys/ports/clock.ts';

const MAX_ADDRESSES = 100_000;

/**
 * The locked addresses this process knows of, for a look without I/O. One that is pushed out is still refused by the
 * shared counter as soon as it fails again. By the monotonic clock: no lock is longer because the other went back.
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

  /** Takes over what the store says, each address with its milliseconds left; those it does not name are free. */
  replaceAll(locked: Iterable<readonly [string, number]>): void {
    // To clear it costs as much as if it were full.
    if (this.#until.size > 0) this.#until.clear();
    for (const [ip, leftMs] of locked) this.lock(ip, leftMs);
  }

  forMs(ip: string): number {
    const until = this.#until.size === 0 ? undefined : this.#until.get(ip);
    return until === undefined ? 0 : Math.max(0, until - this.#clock.monotonic());
  }
}

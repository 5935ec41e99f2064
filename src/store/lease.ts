import type { Clock } from '../keys/ports/clock.ts';

/** A moment on both clocks. */
export interface Instant {
  readonly monotonic: number;
  readonly wall: number;
}

/**
 * The right to use what was read without asking again: for so long after the start of the last poll that succeeded.
 * Elapsed time is the larger of what the two clocks say, so that a machine that was suspended does not keep its lease,
 * and one that was set back has none (docs/design/lease.md E).
 */
export class Lease {
  readonly ms: number;
  readonly #clock: Clock;
  #start: Instant = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };

  constructor(clock: Clock, ms: number) {
    this.#clock = clock;
    this.ms = ms;
  }

  now(): Instant {
    return { monotonic: this.#clock.monotonic(), wall: this.#clock.now() };
  }

  /** @param start taken before the poll was sent. */
  renew(start: Instant): void {
    this.#start = start;
  }

  /** Read anew in each call. */
  get holds(): boolean {
    const monotonic = this.#clock.monotonic() - this.#start.monotonic;
    const wall = this.#clock.now() - this.#start.wall;
    return monotonic >= 0 && wall >= 0 && Math.max(monotonic, wall) < this.ms;
  }

  /** Since the start of the last poll that succeeded; infinite before the first. */
  get ageMs(): number {
    return this.#clock.monotonic() - this.#start.monotonic;
  }
}

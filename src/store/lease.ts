import type { Clock } from '../keys/ports/clock.ts';

/** One moment on the monotonic and on the wall clock. */
export interface Instant {
  readonly monotonic: number;
  readonly wall: number;
}

/**
 * The right to use cached records without asking the store: `ms` long from the start of the last successful poll.
 * Elapsed time is the larger of the two clocks' readings, so a machine that was suspended does not keep its lease, and
 * one whose clock was set back has none (docs/design/lease.md E).
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

  /** @param start the time before the poll was sent. */
  renew(start: Instant): void {
    this.#start = start;
  }

  /** Must be read again in each call: a lease can end at any moment. */
  get holds(): boolean {
    return this.leftMs > 0;
  }

  /** How long the lease still holds, in ms; 0 when it has lapsed. */
  get leftMs(): number {
    const monotonic = this.#clock.monotonic() - this.#start.monotonic;
    const wall = this.#clock.now() - this.#start.wall;
    return monotonic >= 0 && wall >= 0 ? Math.max(0, this.ms - Math.max(monotonic, wall)) : 0;
  }

  /** Time since the start of the last successful poll; infinite before the first. */
  get ageMs(): number {
    return this.#clock.monotonic() - this.#start.monotonic;
  }
}

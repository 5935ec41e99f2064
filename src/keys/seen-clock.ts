import type { Clock } from './ports/clock.ts';

/** A forward step of more than this beyond the elapsed time does not count as seen, so that it may be corrected. */
const MAX_STEP_MS = 3_600_000;

/**
 * The time by which expiry and graces are judged. It never goes back: an expired key stays expired when the clock is
 * set back, until the clock has caught up.
 */
export class SeenClock implements Clock {
  readonly #inner: Clock;
  #greatest: number;
  #seenAt: number;

  /** @param seen the greatest time seen before this process started */
  constructor(inner: Clock, seen = Number.NEGATIVE_INFINITY) {
    this.#inner = inner;
    const now = inner.now();
    this.#greatest = seen - now <= MAX_STEP_MS ? Math.max(now, seen) : now;
    this.#seenAt = inner.monotonic();
  }

  now(): number {
    const now = this.#inner.now();
    if (now <= this.#greatest) return this.#greatest;
    const monotonic = this.#inner.monotonic();
    if (now - this.#greatest <= monotonic - this.#seenAt + MAX_STEP_MS) {
      this.#greatest = now;
      this.#seenAt = monotonic;
    }
    return now;
  }

  monotonic(): number {
    return this.#inner.monotonic();
  }
}

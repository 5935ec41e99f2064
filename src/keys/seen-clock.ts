import type { Clock } from './ports/clock.ts';

/** A step forward of more than this, beyond the time that went by, is no time that was seen: it may be taken back. */
const MAX_STEP_MS = 3_600_000;

/**
 * The time that expiry and graces are judged by. It does not go back: what was over stays over when somebody sets the
 * clock back, until that has caught up.
 */
export class SeenClock implements Clock {
  readonly #inner: Clock;
  #greatest: number;
  #seenAt: number;

  /** @param seen the greatest time that was seen before this process began */
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

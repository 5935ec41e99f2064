import type { Clock } from '../keys/ports/clock.ts';

/** How far the clocks may diverge between two looks. */
const TOLERANCE_MS = 60_000;
const SETTLED_MS = 3_600_000;

/** The time, and how far it can be trusted. */
export interface TimeSeen {
  readonly now: number;
  /** No step was seen within the hour: trusted for actions that a person can undo. */
  readonly steady: boolean;
  /** The clocks have agreed for an hour: trusted for deleting old rows. */
  readonly settled: boolean;
}

/**
 * Whether the time can be trusted. A clock that is 100 days ahead for five seconds must not delete the audit of 100
 * days: the machine's clock, its monotonic clock and the store's must agree for an hour.
 */
export class SettledTime {
  readonly #clock: Clock;
  readonly #skewMs: () => number;
  #last: { readonly wall: number; readonly monotonic: number };
  #agreeSince: number;
  #stepped = false;

  /** @param skewMs how far the store's clock is ahead */
  constructor(clock: Clock, skewMs: () => number) {
    this.#clock = clock;
    this.#skewMs = skewMs;
    this.#last = { wall: clock.now(), monotonic: clock.monotonic() };
    this.#agreeSince = this.#last.monotonic;
  }

  look(): TimeSeen {
    const wall = this.#clock.now();
    const monotonic = this.#clock.monotonic();
    const parted = wall - this.#last.wall - (monotonic - this.#last.monotonic);
    this.#last = { wall, monotonic };
    if (Math.abs(parted) > TOLERANCE_MS || Math.abs(this.#skewMs()) > TOLERANCE_MS) {
      this.#stepped = true;
      this.#agreeSince = monotonic;
    }
    const settled = monotonic - this.#agreeSince >= SETTLED_MS;
    if (settled) this.#stepped = false;
    return { now: wall, steady: !this.#stepped, settled };
  }
}

import type { Clock } from '../../src/keys/ports/clock.ts';

/** Time that passes only when a test says so. */
export class TestClock implements Clock {
  #now: number;
  #monotonic = 1_000;

  constructor(start = Date.parse('2026-03-01T12:00:00Z')) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  /** Sets the time without any having passed. */
  step(ms: number): void {
    this.#now += ms;
  }

  advance(ms: number): void {
    this.#now += ms;
    this.#monotonic += ms;
  }
}

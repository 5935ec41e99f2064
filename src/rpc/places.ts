import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from './limits.ts';

/** A finished response is sent within this time. */
const LEAVE_MS = 200;

/** Counts calls in flight, from the arrival of the whole message; their number is bounded. */
export class Places {
  #taken = 0;
  /** Refusals being recorded: they take no place, but the shutdown waits for them. */
  #refusing = 0;
  #idle: (() => void) | undefined;

  get taken(): number {
    return this.#taken;
  }

  get full(): boolean {
    return this.#taken >= LIMITS.callsUnderWay;
  }

  take(): void {
    this.#taken++;
  }

  leave(): void {
    this.#taken--;
    if (!this.#busy) this.#idle?.();
  }

  beginRefusal(): void {
    this.#refusing++;
  }

  endRefusal(): void {
    this.#refusing--;
    if (!this.#busy) this.#idle?.();
  }

  get #busy(): boolean {
    return this.#taken + this.#refusing > 0;
  }

  /** Resolves when no call is in flight and the responses have had time to leave. */
  async idle(): Promise<void> {
    do {
      if (this.#busy) {
        await new Promise<void>((resolve) => {
          this.#idle = resolve;
        });
      }
      await delay(LEAVE_MS);
    } while (this.#busy);
  }
}

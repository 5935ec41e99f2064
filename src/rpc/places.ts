import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from './limits.ts';

/** A response that is made leaves within this. */
const LEAVE_MS = 200;

/** Calls under way: their messages are whole, and so many may be at once. */
export class Places {
  #taken = 0;
  /** Refusals that are being recorded: they hold no place, and the end of the process waits for them. */
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

  /** Resolves when no call is under way and its responses have had time to leave. */
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

import type { Server } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { ApiError } from '../keys/errors.ts';

const CHECK_MS = 1_000;
const ANSWER_MS = 2_000;

/** Whether this process can decide: SERVING while the store answers, NOT_SERVING again when it does not. */
export class Health {
  readonly #services: readonly string[];
  readonly #implementation: HealthImplementation;
  readonly #ping: () => Promise<void>;
  readonly #changed: (serving: boolean) => void;
  #serving = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param ping rejects when no decision could be made now; no answer in 2 s counts as that. */
  constructor(services: readonly string[], ping: () => Promise<void>, changed: (serving: boolean) => void) {
    this.#services = ['', ...services];
    this.#implementation = new HealthImplementation(
      Object.fromEntries(this.#services.map((service) => [service, 'NOT_SERVING' as const])),
    );
    this.#ping = ping;
    this.#changed = changed;
  }

  get serving(): boolean {
    return this.#serving;
  }

  addToServer(server: Server): void {
    this.#implementation.addToServer(server);
  }

  /** Checks now and from then on every second. */
  async start(): Promise<void> {
    await this.#check();
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.start(), CHECK_MS).unref();
  }

  /** NOT_SERVING from now on: the process is ending. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#stopped = true;
    this.#set(false);
  }

  async #check(): Promise<void> {
    if (this.#stopped) return;
    let overdue: NodeJS.Timeout | undefined;
    try {
      await Promise.race([
        this.#ping(),
        new Promise((_, reject) => {
          const late = new ApiError('STORE_UNAVAILABLE', 'the store does not answer');
          overdue = setTimeout(() => reject(late), ANSWER_MS).unref();
        }),
      ]);
      if (!this.#stopped) this.#set(true);
    } catch {
      // The reason is told where the failing work is done; here only the fact counts.
      this.#set(false);
    } finally {
      clearTimeout(overdue);
    }
  }

  #set(serving: boolean): void {
    if (serving === this.#serving) return;
    this.#serving = serving;
    for (const service of this.#services) {
      this.#implementation.setStatus(service, serving ? 'SERVING' : 'NOT_SERVING');
    }
    if (!this.#stopped) this.#changed(serving);
  }
}

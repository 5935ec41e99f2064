import type { AuditLog, Clock } from '../keys/ports.ts';

const DAY_MS = 86_400_000;
/** Retention deletes in small steps, so that it never holds up a call for long. */
const STEP_EVENTS = 500;
const MAX_STEPS = 200;

export interface SweeperParts {
  readonly store: { sweep(): Promise<void> };
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly intervalMs: number;
  /** 0 keeps everything. */
  readonly retentionDays: number;
  readonly warn: (text: string, error: unknown) => void;
}

/** Tidies up now and then: what crashes left, counters that are over, events past their retention. */
export class Sweeper {
  readonly #parts: SweeperParts;
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(parts: SweeperParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#sweeping = this.sweep().then(() => {
      if (!this.#stopped) this.#timer = setTimeout(() => this.start(), this.#parts.intervalMs).unref();
    });
  }

  /** Waits for the sweep that is under way. */
  stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    return this.#sweeping;
  }

  /** One sweep. What fails is told and left for the next one. */
  async sweep(): Promise<void> {
    try {
      await this.#parts.store.sweep();
      await this.#deleteOldEvents();
    } catch (error) {
      this.#parts.warn('sweep failed, the next one tries again', error);
    }
  }

  async #deleteOldEvents(): Promise<void> {
    const { audit, clock, retentionDays } = this.#parts;
    if (retentionDays === 0) return;
    const before = clock.now() - retentionDays * DAY_MS;
    for (let step = 0; step < MAX_STEPS && !this.#stopped; step++) {
      if ((await audit.deleteBefore(before, STEP_EVENTS)) < STEP_EVENTS) return;
    }
  }
}

import { ApiError } from '../keys/errors.ts';
import type { AuditEntry } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { ownEntry } from './event.ts';

/** Counts calls that were refused without an event, and writes the count as one event once the log accepts it. */
export class GapReporter {
  readonly #record: (entry: AuditEntry) => Promise<void>;
  readonly #clock: Clock;
  readonly #retryMs: number;
  #refused = 0;
  #total = 0;
  #since = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(record: (entry: AuditEntry) => Promise<void>, clock: Clock, retryMs = 250) {
    this.#record = record;
    this.#clock = clock;
    this.#retryMs = retryMs;
  }

  /** The number of calls counted since the start. */
  get total(): number {
    return this.#total;
  }

  count(calls: number): void {
    this.#total += calls;
    this.#keep(calls);
  }

  #keep(calls: number): void {
    if (this.#refused === 0) this.#since = this.#clock.now();
    this.#refused += calls;
    this.#timer ??= setTimeout(() => void this.flush(), this.#retryMs).unref();
  }

  /** Tries to write the count; after a failure it is kept and tried again. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const calls = this.#refused;
    if (calls === 0) return;
    this.#refused = 0;
    try {
      await this.#record(gapEntry(calls, this.#since));
    } catch (error) {
      const kept = error instanceof ApiError && error.facts.audited === true;
      if (!kept) this.#keep(calls);
    }
  }
}

function gapEntry(refusedCalls: number, since: number): AuditEntry {
  const reason = 'calls refused while the log or the server was away or overwhelmed';
  return ownEntry({ time: since, outcome: 'GAP', reason, refusedCalls });
}

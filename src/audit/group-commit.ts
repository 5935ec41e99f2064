import { ApiError } from '../keys/errors.ts';
import type { Clock } from '../keys/ports/clock.ts';

export interface GroupCommitOptions<T> {
  /**
   * Makes a batch durable. One call at a time, in the order of arrival. Must reject only when nothing of the batch
   * was or will be written: while the outcome is unknown, it must keep trying.
   */
  readonly write: (batch: T[]) => Promise<void>;
  /** The most items that are queued or in flight; a further one is refused. */
  readonly maxQueued: number;
  readonly maxBatch: number;
  /** A waiting caller gets AUDIT_UNAVAILABLE after this time; its item stays queued. */
  readonly waitLimitMs: number;
  readonly clock: Clock;
  /** Called for each durable batch. */
  readonly written?: ((items: number, ms: number) => void) | undefined;
  /** Its name in errors to callers; the audit log by default. */
  readonly name?: string;
}

const AUDIT_LOG = 'the audit log';

interface Waiting<T> {
  readonly item: T;
  readonly since: number;
  resolve: () => void;
  reject: (error: unknown) => void;
  answered: boolean;
}

/** Writes all items that arrived during the last write in one acknowledged write. */
export class GroupCommit<T> {
  readonly #options: GroupCommitOptions<T>;
  #queue: Waiting<T>[] = [];
  #flight: Waiting<T>[] = [];
  #idle: (() => void)[] = [];
  #watchdog: NodeJS.Timeout | undefined;

  constructor(options: GroupCommitOptions<T>) {
    this.#options = options;
  }

  /** The number of items that are not durable yet. */
  get pending(): number {
    return this.#queue.length + this.#flight.length;
  }

  /** Resolves when the item is durable. Rejects with AUDIT_OVERLOADED at once when the queue is full. */
  add(item: T): Promise<void> {
    const { maxQueued, clock, name = AUDIT_LOG } = this.#options;
    if (this.pending >= maxQueued) {
      return Promise.reject(
        new ApiError('AUDIT_OVERLOADED', `too many calls are waiting for ${name}`, {
          retryAfterMs: 1000,
        }),
      );
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, since: clock.monotonic(), resolve, reject, answered: false });
      if (this.#flight.length === 0) this.#start();
    });
  }

  /** Resolves when no item is queued or in flight. */
  drained(): Promise<void> {
    if (this.pending === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #start(): void {
    this.#flight = this.#queue.splice(0, this.#options.maxBatch);
    this.#watchdog ??= setInterval(() => this.#giveUpOld(), this.#options.waitLimitMs / 4).unref();
    // Items of other calls in this turn of the event loop join the write.
    setImmediate(() => void this.#commit());
  }

  async #commit(): Promise<void> {
    const room = this.#options.maxBatch - this.#flight.length;
    if (room > 0 && this.#queue.length > 0) this.#flight.push(...this.#queue.splice(0, room));
    const flight = this.#flight;
    const { clock, write, written } = this.#options;
    const begun = clock.monotonic();
    let failure: unknown;
    let failed = false;
    try {
      await write(flight.map(({ item }) => item));
      written?.(flight.length, clock.monotonic() - begun);
    } catch (error) {
      failed = true;
      failure = error;
    }
    this.#flight = [];
    for (const waiting of flight) {
      if (waiting.answered) continue;
      if (failed) waiting.reject(failure);
      else waiting.resolve();
    }
    if (this.#queue.length > 0) this.#start();
    else this.#settleIdle();
  }

  #settleIdle(): void {
    clearInterval(this.#watchdog);
    this.#watchdog = undefined;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** No call hangs on an unavailable log: the oldest get an error, their items stay queued. */
  #giveUpOld(): void {
    const { name = AUDIT_LOG } = this.#options;
    const before = this.#options.clock.monotonic() - this.#options.waitLimitMs;
    for (const waiting of [...this.#flight, ...this.#queue]) {
      if (waiting.answered || waiting.since > before) continue;
      waiting.answered = true;
      waiting.reject(
        new ApiError('AUDIT_UNAVAILABLE', `${name} does not answer`, {
          retryAfterMs: 1000,
          audited: true,
        }),
      );
    }
  }
}

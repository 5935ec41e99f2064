import type { Checkpoints } from '../audit/checkpoints.ts';
import type { Retention } from '../audit/retention.ts';
import type { AlertLog, AnomalyLog, SweepLease } from '../keys/notices.ts';
import type { UsageLog } from '../keys/ports/usage.ts';
import type { AlertRaiser } from './alert-raiser.ts';
import type { AnomalyWatch } from './anomaly-watch.ts';
import type { DueKeys } from './due-keys.ts';
import type { SettledTime } from './settled-time.ts';

const DAY_MS = 86_400_000;
/** Retention deletes in small steps, so that it never delays a call for long. */
const STEP_ROWS = 500;
const MAX_STEPS = 200;
/** The pause after a sweep that left old rows, so that other work and processes get their turn. */
const BEHIND_MS = 250;

export interface SweeperParts {
  readonly store: { sweep(dropOld: boolean): Promise<void> };
  readonly lease: SweepLease;
  readonly checkpoints: Pick<Checkpoints, 'tick'>;
  readonly retention: Pick<Retention, 'deleteBefore'>;
  readonly alertLog: Pick<AlertLog, 'deleteBefore'>;
  readonly anomalies: Pick<AnomalyLog, 'deleteResolvedBefore'>;
  readonly anomalyWatch: Pick<AnomalyWatch, 'finishAbandoned'>;
  readonly alerts: Pick<AlertRaiser, 'redeliver'>;
  readonly dueKeys: Pick<DueKeys, 'sweep'>;
  readonly time: Pick<SettledTime, 'look'>;
  readonly intervalMs: number;
  readonly usage: Pick<UsageLog, 'flush' | 'deleteBefore'>;
  /** Days to keep events, alerts and resolved anomalies; 0 keeps all. */
  readonly retentionDays: number;
  /** Days to keep usage counts; 0 keeps all. */
  readonly usageRetentionDays: number;
  readonly warn: (text: string, error: unknown) => void;
}

/**
 * Cleans up periodically, on one process of a deployment: leftovers of crashes, ended counters, due notices, rows past
 * their retention. Every step is idempotent.
 */
export class Sweeper {
  readonly #parts: SweeperParts;
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #stopped = false;
  /** Old rows were last deleted as of this time. */
  #deletedAt: number | undefined;
  /** Rows from before that time remain. */
  #left = false;
  #told = false;

  constructor(parts: SweeperParts) {
    this.#parts = parts;
  }

  start(): void {
    const { intervalMs } = this.#parts;
    this.#sweeping = this.sweep().then((done) => {
      const pause = done ? intervalMs : Math.min(BEHIND_MS, intervalMs);
      if (!this.#stopped) this.#timer = setTimeout(() => this.start(), pause).unref();
    });
  }

  /** Waits for the current sweep and releases the lease to another process. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#sweeping;
    await this.#reportFailure(() => this.#parts.lease.release());
  }

  /**
   * One sweep, if this process holds the lease. A failed step is logged and left for the next sweep; the others go on.
   * @returns false when old rows remain
   */
  async sweep(): Promise<boolean> {
    const { lease, store, dueKeys, anomalyWatch, alerts, usage, checkpoints } = this.#parts;
    const { time, intervalMs } = this.#parts;
    const { now, steady, settled } = time.look();
    if (!steady && !this.#told)
      this.#parts.warn(
        'a clock was set: until it has been steady for an hour, nothing is deleted and no due key is handled',
        undefined,
      );
    this.#told = !steady;
    // Runs on each process, since a chain is referred to only by the chains of others.
    await this.#reportFailure(() => checkpoints.tick());
    // Another process takes over after the holder has missed a sweep and a half.
    const ours = await this.#reportFailure(() => lease.take(2.5 * intervalMs));
    if (ours !== true) return true;
    await this.#reportFailure(() => store.sweep(steady));
    if (steady) await this.#reportFailure(() => dueKeys.sweep());
    await this.#reportFailure(() => anomalyWatch.finishAbandoned(now));
    await this.#reportFailure(() => alerts.redeliver(now));
    // Before events are deleted: retention keeps events that are not counted.
    await this.#reportFailure(() => usage.flush());
    return !settled || ((await this.#reportFailure(() => this.#deleteOld(now))) ?? true);
  }

  /** @returns whether no old rows remain */
  async #deleteOld(now: number): Promise<boolean> {
    const { retention, alertLog, anomalies, usage, retentionDays, usageRetentionDays } = this.#parts;
    // At most one day more than the last time, and only once that day's rows are deleted.
    const at = this.#left ? (this.#deletedAt ?? now) : Math.min(now, (this.#deletedAt ?? now) + DAY_MS);
    this.#deletedAt = at;
    const before = (days: number) => at - days * DAY_MS;
    const steps = [
      ...(retentionDays === 0
        ? []
        : [
            () => retention.deleteBefore(before(retentionDays), STEP_ROWS),
            () => alertLog.deleteBefore(before(retentionDays), STEP_ROWS),
            () => anomalies.deleteResolvedBefore(before(retentionDays), STEP_ROWS),
          ]),
      ...(usageRetentionDays === 0 ? [] : [() => usage.deleteBefore(before(usageRetentionDays), STEP_ROWS)]),
    ];
    let done = true;
    for (const step of steps) {
      let n = 0;
      while (n < MAX_STEPS && !this.#stopped && (await step()) >= STEP_ROWS) n++;
      done &&= n < MAX_STEPS;
    }
    this.#left = !done;
    return done;
  }

  async #reportFailure<T>(step: () => Promise<T>): Promise<T | undefined> {
    try {
      return await step();
    } catch (error) {
      this.#parts.warn('sweep failed, the next one tries again', error);
      return undefined;
    }
  }
}

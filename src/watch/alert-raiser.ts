import { setTimeout as delay } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import type { Alert, AlertLog } from '../keys/notices.ts';

const MAX_WAITING = 10_000;
const MAX_KNOWN = 100_000;
const RETRY_MS = 1_000;
/** An alert undelivered after this time was left by a process that ended. */
export const LEFT_BEHIND_MS = 10_000;
const REDELIVER = 200;

/** A destination of alerts besides the store. */
export interface AlertSink {
  /** Rejects when the alert was not accepted; delivery is retried later. */
  publish(alert: Alert): Promise<void>;
}

export interface AlertRaiserParts {
  readonly alerts: AlertLog;
  readonly sinks: readonly AlertSink[];
  /** Called once for each alert that this process delivers. */
  readonly told: (alert: Alert) => void;
  readonly warn: (text: string, error: unknown) => void;
}

/** Writes alerts, each once however often it is raised, and delivers new ones. Callers never wait. */
export class AlertRaiser {
  readonly #parts: AlertRaiserParts;
  readonly #known = new LRUCache<string, true>({ max: MAX_KNOWN });
  readonly #waiting = new Map<string, Alert>();
  #working: Promise<void> | undefined;
  #stopping = new AbortController();
  #failing = false;
  #overflowing = false;

  constructor(parts: AlertRaiserParts) {
    this.#parts = parts;
  }

  /** @returns whether the alert is new to this process and will be written */
  raise(alert: Alert): boolean {
    if (this.#known.has(alert.id)) return false;
    if (this.#waiting.size >= MAX_WAITING) {
      if (!this.#overflowing) this.#parts.warn('alerts are dropped: too many wait for the store', alert.type);
      this.#overflowing = true;
      return false;
    }
    this.#known.set(alert.id, true);
    this.#waiting.set(alert.id, alert);
    this.#working ??= this.#work();
    return true;
  }

  /** Delivers alerts left by processes that ended. */
  async redeliver(now: number): Promise<void> {
    for (const alert of await this.#parts.alerts.undelivered(now - LEFT_BEHIND_MS, REDELIVER)) {
      if (!(await this.#deliver(alert))) return;
      this.#parts.told(alert);
    }
  }

  /** Resolves when the raised alerts are written, or the store does not accept them. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#working;
  }

  async #work(): Promise<void> {
    // Starts only after the raising call has continued.
    await new Promise(setImmediate);
    for (const [id, alert] of this.#waiting) {
      try {
        if (await this.#parts.alerts.insert(alert)) {
          this.#parts.told(alert);
          await this.#deliver(alert);
        }
        this.#waiting.delete(id);
        this.#failing = false;
        this.#overflowing = false;
      } catch (error) {
        if (!this.#failing) this.#parts.warn('alerts cannot be written, trying again', error);
        this.#failing = true;
        if (this.#stopping.signal.aborted) break;
        await delay(RETRY_MS, undefined, { signal: this.#stopping.signal, ref: false }).catch(() => {});
      }
    }
    this.#working = this.#waiting.size > 0 && !this.#stopping.signal.aborted ? this.#work() : undefined;
  }

  /** False when a sink did not accept the alert, which stays undelivered for the next sweep. */
  async #deliver(alert: Alert): Promise<boolean> {
    try {
      for (const sink of this.#parts.sinks) await sink.publish(alert);
    } catch {
      // The sink logs its outage itself.
      return false;
    }
    await this.#parts.alerts.markDelivered(alert.id);
    return true;
  }
}

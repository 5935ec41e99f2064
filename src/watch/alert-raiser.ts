import { setTimeout as delay } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import type { Alert, AlertLog } from '../keys/notices.ts';

const MAX_WAITING = 10_000;
const MAX_KNOWN = 100_000;
const RETRY_MS = 1_000;
/** A new alert that nobody delivered by then was left by a process that ended. */
export const LEFT_BEHIND_MS = 10_000;
const REDELIVER = 200;

/** Where alerts go beside the store. */
export interface AlertSink {
  /** Rejects when it was not taken; it is tried again later. */
  publish(alert: Alert): Promise<void>;
}

export interface AlertRaiserParts {
  readonly alerts: AlertLog;
  readonly sinks: readonly AlertSink[];
  /** Told once for each alert that this process delivers. */
  readonly told: (alert: Alert) => void;
  readonly warn: (text: string, error: unknown) => void;
}

/** Writes alerts down, each once however often it is raised, and hands new ones on. Never keeps its callers waiting. */
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

  /** @returns whether it is one that this process did not know, and that goes to the store */
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

  /** Delivers what processes that ended have left. */
  async redeliver(now: number): Promise<void> {
    for (const alert of await this.#parts.alerts.undelivered(now - LEFT_BEHIND_MS, REDELIVER)) {
      if (!(await this.#deliver(alert))) return;
      this.#parts.told(alert);
    }
  }

  /** Resolves when what was raised is written, or the store does not take it. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#working;
  }

  async #work(): Promise<void> {
    // Not before the call that raised it has gone on.
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

  /** False when a sink did not take it: it stays marked, and the sweep tries again. */
  async #deliver(alert: Alert): Promise<boolean> {
    try {
      for (const sink of this.#parts.sinks) await sink.publish(alert);
    } catch {
      // The sink itself says once that it is away.
      return false;
    }
    await this.#parts.alerts.markDelivered(alert.id);
    return true;
  }
}

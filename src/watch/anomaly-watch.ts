import { LRUCache } from 'lru-cache';
import { isWorkingSecret } from '../keys/check.ts';
import type { AlertLog, Anomaly, AnomalyLog, AnomalyType, ThresholdExceeded } from '../keys/notices.ts';
import type { Decided } from '../keys/ports/observer.ts';
import { type AlertRaiser, LEFT_BEHIND_MS } from './alert-raiser.ts';
import { type AnomalyThresholds, AnomalyWindows } from './anomaly-windows.ts';

const FLUSH_MS = 250;
/** Keys with trips pending to be written. */
const MAX_KEYS = 10_000;
const MAX_OPEN = 1_000;
const DAY_MS = 86_400_000;

const TEXTS: Readonly<Record<AnomalyType, string>> = {
  HIGH_REQUEST_RATE: 'is used more often than usual',
  HIGH_ERROR_RATE: 'is denied more often than usual',
  MULTIPLE_IPS: 'is used from more addresses than usual',
  UNUSUAL_TIME: 'is used in the quiet hours',
};

type TripsOfKey = { [T in AnomalyType]?: ThresholdExceeded & { count: number; lastTime: number } };

export interface AnomalyWatchParts {
  readonly anomalies: AnomalyLog;
  readonly alerts: Pick<AlertRaiser, 'raise'>;
  readonly alertLog: Pick<AlertLog, 'get'>;
  readonly thresholds: AnomalyThresholds;
  /** ANOMALY_ACTION=disable: disables the key; false when it is disabled or revoked already. */
  readonly disable: ((keyId: string) => Promise<boolean>) | undefined;
  readonly warn: (text: string, error: unknown) => void;
}

/** Counts decisions made with a working secret and records anomalies, off the path of the call. */
export class AnomalyWatch {
  readonly #parts: AnomalyWatchParts;
  /** Undefined when every threshold is off, so that nothing is counted. */
  readonly #windows: AnomalyWindows | undefined;
  #trips = new Map<string, TripsOfKey>();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #failing = false;
  /** Anomalies known to have been reported. */
  readonly #reported = new LRUCache<string, true>({ max: 10 * MAX_OPEN });

  constructor(parts: AnomalyWatchParts) {
    this.#parts = parts;
    const { maxRequestsPerMinute, maxErrorRatio, maxIpsPerHour, quietHours } = parts.thresholds;
    const off =
      ![maxRequestsPerMinute, maxErrorRatio, maxIpsPerHour].some(Number.isFinite) && quietHours === undefined;
    this.#windows = off ? undefined : new AnomalyWindows(parts.thresholds);
  }

  decided({ decision, key, clientIp, dryRun, time }: Decided): void {
    if (this.#windows === undefined || key === undefined || dryRun || !isWorkingSecret(decision)) return;
    for (const type of this.#windows.add(key.id, time, decision !== 'VALID', clientIp)) {
      this.#note(key.id, type, 1, time, time);
    }
  }

  /** Writes pending trips; those that cannot be written are logged, kept and retried. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  /** Reports anomalies opened by a process that ended before it could report them. */
  async finishAbandoned(now: number): Promise<void> {
    const { anomalies, alertLog } = this.#parts;
    const { items } = await anomalies.list({ state: 'OPEN' }, { size: MAX_OPEN, after: undefined });
    for (const anomaly of items) {
      const age = now - anomaly.firstTime;
      if (age < LEFT_BEHIND_MS || age > DAY_MS || this.#reported.has(anomaly.id)) continue;
      if ((await alertLog.get(alertIdOf(anomaly))) === undefined) await this.#opened(anomaly);
      this.#reported.set(anomaly.id, true);
    }
  }

  async #write(): Promise<void> {
    const trips = [...this.#trips.values()].flatMap((ofKey) => Object.values(ofKey));
    this.#trips = new Map();
    for (const [i, trip] of trips.entries()) {
      try {
        const anomaly = await this.#parts.anomalies.trip(trip);
        this.#failing = false;
        // The first trip opened the anomaly: only the process that wrote it reports it.
        if (anomaly.count === trip.count) await this.#opened(anomaly);
      } catch (error) {
        if (!this.#failing) this.#parts.warn('anomalies cannot be written, trying again', error);
        this.#failing = true;
        for (const { keyId, type, count, firstTime, lastTime } of trips.slice(i))
          this.#note(keyId, type, count, firstTime, lastTime);
        return;
      }
    }
  }

  async #opened(anomaly: Anomaly): Promise<void> {
    this.#reported.set(anomaly.id, true);
    const disabled = (await this.#parts.disable?.(anomaly.keyId)) === true;
    this.#parts.alerts.raise(anomalyAlert(anomaly, disabled));
  }

  #note(keyId: string, type: AnomalyType, count: number, firstTime: number, lastTime: number): void {
    let ofKey = this.#trips.get(keyId);
    if (ofKey === undefined) {
      if (this.#trips.size >= MAX_KEYS) return;
      ofKey = {};
      this.#trips.set(keyId, ofKey);
    }
    const noted = ofKey[type];
    if (noted === undefined) ofKey[type] = { keyId, type, count, firstTime, lastTime };
    else {
      noted.count += count;
      noted.lastTime = Math.max(noted.lastTime, lastTime);
    }
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS).unref();
  }
}

function alertIdOf({ id }: Anomaly): string {
  return `ANOMALY:${id}`;
}

function anomalyAlert(anomaly: Anomaly, disabled: boolean) {
  const { id, keyId, type, firstTime } = anomaly;
  return {
    id: alertIdOf(anomaly),
    type: 'ANOMALY' as const,
    time: firstTime,
    keyId,
    clientIp: '',
    text: `key ${keyId} ${TEXTS[type]}${disabled ? '; it was disabled' : ''}`,
    detail: { anomaly: type, anomaly_id: id, ...(disabled ? { action: 'disabled' } : {}) },
  };
}

import type { AuditEntry } from './ports/audit.ts';
import type { Page, Paged } from './ports/page.ts';

export const ANOMALY_TYPES = [
  'HIGH_REQUEST_RATE',
  'HIGH_ERROR_RATE',
  'MULTIPLE_IPS',
  'UNUSUAL_TIME',
] as const;
export type AnomalyType = (typeof ANOMALY_TYPES)[number];
export type AnomalyState = 'OPEN' | 'RESOLVED';

/** Something unusual about a key; at most one is OPEN for a key and a type. Times are milliseconds since 1970. */
export interface Anomaly {
  readonly id: string;
  readonly keyId: string;
  readonly type: AnomalyType;
  readonly state: AnomalyState;
  /** Calls beyond the threshold. */
  readonly count: number;
  readonly firstTime: number;
  readonly lastTime: number;
  readonly resolveTime: number | undefined;
}

export interface AnomalyFilter {
  readonly keyId?: string;
  readonly type?: AnomalyType;
  readonly state?: AnomalyState;
}

/** Calls beyond a threshold, to be added to the open record. */
export interface ThresholdExceeded {
  readonly keyId: string;
  readonly type: AnomalyType;
  readonly count: number;
  readonly firstTime: number;
  readonly lastTime: number;
}

export interface AnomalyLog {
  /** Adds to the open record of the key and type, or opens one. */
  trip(trip: ThresholdExceeded): Promise<Anomaly>;
  /** Newest first. */
  list(filter: AnomalyFilter, page: Page): Promise<Paged<Anomaly>>;
  /**
   * Stores the resolution with its event, both or neither; undefined when there is no such record. A resolved one is
   * kept.
   */
  resolve(id: string, time: number, entry: AuditEntry): Promise<Anomaly | undefined>;
  /** Deletes up to `limit` records resolved before `time`; returns how many. */
  deleteResolvedBefore(time: number, limit: number): Promise<number>;
}

export const ALERT_TYPES = [
  'ANOMALY',
  'OLD_KEY_LATE_USE',
  'OLD_KEY_REJECTED',
  'ROTATION_NOT_CLEANED_UP',
  'ROTATION_DUE',
  'KEY_EXPIRING',
  'LOCKOUT',
] as const;
export type AlertType = (typeof ALERT_TYPES)[number];

/** A notice for people. The id is derived from the subject, so that a subject raised often has one record. */
export interface Alert {
  readonly id: string;
  readonly type: AlertType;
  readonly time: number;
  /** '' when the alert is about an address. */
  readonly keyId: string;
  readonly clientIp: string;
  readonly text: string;
  readonly detail: Readonly<Record<string, string>>;
}

export interface AlertLog {
  /** False, without a change, when the alert exists already. A new one is pending delivery. */
  insert(alert: Alert): Promise<boolean>;
  get(id: string): Promise<Alert | undefined>;
  /** Alerts at or after `since`, oldest first. */
  list(since: number, page: Page): Promise<Paged<Alert>>;
  /** Alerts before `time` that are not delivered, at most `limit`. */
  undelivered(time: number, limit: number): Promise<readonly Alert[]>;
  markDelivered(id: string): Promise<void>;
  /** Deletes up to `limit` delivered alerts before `time`; returns how many. */
  deleteBefore(time: number, limit: number): Promise<number>;
}

/** The right to sweep, held by one process of a deployment at a time. */
export interface SweepLease {
  /** Takes or renews the lease for `forMs`, by the store's clock; false while another process holds it. */
  take(forMs: number): Promise<boolean>;
  /** Releases the lease, so that the next process need not wait for its end. */
  release(): Promise<void>;
}

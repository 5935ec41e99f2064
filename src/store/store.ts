import type { AlertLog, AnomalyLog, SweepLease } from '../keys/notices.ts';
import type { AuditLog, Clock, KeyStore, Lockout, QuotaLimiter, RotationLog } from '../keys/ports.ts';

/** Everything a database gives; both adapters fill it, one contract suite judges them. */
export interface Store {
  readonly keys: KeyStore;
  readonly quota: QuotaLimiter;
  readonly lockout: Lockout;
  readonly audit: AuditLog;
  readonly rotations: RotationLog;
  readonly anomalies: AnomalyLog;
  readonly alerts: AlertLog;
  readonly sweepLease: SweepLease;
  /** Rejects with STORE_UNAVAILABLE when the store cannot be read and written now. */
  ping(): Promise<void>;
  /** Finishes what crashes left behind and drops counters that are over. Safe from several processes at once. */
  sweep(): Promise<void>;
  /** Waits for what is under way, then lets go. Nothing may be called afterwards. */
  close(): Promise<void>;
}

export interface LockoutSettings {
  /** Failures within the window that lock an address. */
  readonly maxAttempts: number;
  /** Length of the window and of the lock. */
  readonly windowSeconds: number;
}

/** Told when background work fails; the text holds no secret. */
export type Warn = (text: string, error: unknown) => void;

export interface StoreOptions {
  readonly url: string;
  readonly clock: Clock;
  readonly lockout: LockoutSettings;
  readonly warn: Warn;
}

/** Why a process cannot start: it ends with this exit code (69 unavailable, 78 configuration) and this one line. */
export class StartError extends Error {
  readonly exitCode: 69 | 78;

  constructor(exitCode: 69 | 78, text: string, cause?: unknown) {
    super(text, { cause });
    this.name = 'StartError';
    this.exitCode = exitCode;
  }
}

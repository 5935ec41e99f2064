import type { Chain } from '../audit/chain.ts';
import { Checkpoints } from '../audit/checkpoints.ts';
import { Retention } from '../audit/retention.ts';
import type { Decision } from '../keys/check.ts';
import { networkOf } from '../keys/ip.ts';
import type { Key } from '../keys/key.ts';
import type { Alert, AlertLog, AnomalyLog, SweepLease } from '../keys/notices.ts';
import type { AuditLog, ChainLog } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { KeyStore } from '../keys/ports/key-store.ts';
import type { Decided, Observer } from '../keys/ports/observer.ts';
import type { RotationLog } from '../keys/ports/rotations.ts';
import type { UsageLog } from '../keys/ports/usage.ts';
import type { RotationStart } from '../keys/rotation.ts';
import { AlertFeed } from './alert-feed.ts';
import { AlertRaiser, type AlertSink } from './alert-raiser.ts';
import { AnomalyWatch } from './anomaly-watch.ts';
import type { AnomalyThresholds } from './anomaly-windows.ts';
import { DueKeys } from './due-keys.ts';
import { KeyFeed } from './key-feed.ts';
import { type RotationLogger, RotationWatch } from './rotation-watch.ts';
import { SettledTime } from './settled-time.ts';
import { Sweeper } from './sweeper.ts';

/** The stores that the watch uses. */
export interface WatchStore {
  readonly audit: AuditLog;
  readonly chainLog: ChainLog;
  readonly chain: Chain;
  readonly rotations: RotationLog;
  readonly anomalies: AnomalyLog;
  readonly alerts: AlertLog;
  readonly usage: UsageLog;
  readonly sweepLease: SweepLease;
  readonly sharing: { readonly skewMs: number } | undefined;
  sweep(dropOld?: boolean): Promise<void>;
}

/** The watch's log lines for people. */
export interface WatchLogger extends RotationLogger {
  alert(alert: Alert): void;
  rotationBegun(key: Key, rotation: RotationStart): void;
  graceEnded(key: Key): void;
  warn(text: string, error: unknown): void;
}

export interface WatchParts {
  readonly store: WatchStore;
  readonly keys: Pick<KeyStore, 'due' | 'changesSince'>;
  readonly sinks: readonly AlertSink[];
  readonly logger: WatchLogger;
  readonly counted: (decision: Decision) => void;
  /** Completes the key's rotation, if its grace is over. */
  readonly complete: (key: Key) => Promise<void>;
  /** ANOMALY_ACTION=disable. */
  readonly disable: ((keyId: string) => Promise<boolean>) | undefined;
  readonly clock: Clock;
  readonly thresholds: AnomalyThresholds;
  readonly autoCleanup: boolean;
  readonly sweepIntervalMs: number;
  readonly retentionDays: number;
  readonly usageRetentionDays: number;
}

/** Observes decisions: counts them, records anomalies, raises alerts and cleans up. */
export class Watch implements Observer {
  readonly alertFeed: AlertFeed;
  readonly keyFeed: KeyFeed;
  readonly #sweeper: Sweeper;
  readonly #alerts: AlertRaiser;
  readonly #anomalies: AnomalyWatch;
  readonly #rotations: RotationWatch;
  readonly #parts: WatchParts;

  constructor(parts: WatchParts) {
    const { store, logger, clock, keys, thresholds, disable, complete, autoCleanup } = parts;
    const { rotations, anomalies, alerts: alertLog } = store;
    const warn = (text: string, error: unknown) => logger.warn(text, error);
    this.#parts = parts;
    this.alertFeed = new AlertFeed(alertLog, clock, warn);
    this.keyFeed = new KeyFeed(keys, warn);
    const told = (alert: Alert) => {
      logger.alert(alert);
      this.alertFeed.wake();
    };
    const alerts = new AlertRaiser({ alerts: alertLog, sinks: parts.sinks, told, warn });
    this.#alerts = alerts;
    this.#anomalies = new AnomalyWatch({ anomalies, alerts, alertLog, thresholds, disable, warn });
    this.#rotations = new RotationWatch({ rotations, alertLog, alerts, logger, warn });
    const graceEnded = (key: Key) => logger.graceEnded(key);
    this.#sweeper = new Sweeper({
      store,
      lease: store.sweepLease,
      retention: new Retention(store.audit, store.chainLog, clock),
      checkpoints: new Checkpoints(store.audit, store.chainLog, store.chain, clock),
      alertLog,
      anomalies,
      anomalyWatch: this.#anomalies,
      alerts,
      dueKeys: new DueKeys({ keys, rotations, alerts, complete, graceEnded, clock, autoCleanup }),
      time: new SettledTime(clock, () => store.sharing?.skewMs ?? 0),
      intervalMs: parts.sweepIntervalMs,
      retentionDays: parts.retentionDays,
      usage: store.usage,
      usageRetentionDays: parts.usageRetentionDays,
      warn,
    });
  }

  decided(decided: Decided): void {
    this.#parts.counted(decided.decision);
    this.#anomalies.decided(decided);
    if (decided.slot !== 'CURRENT') this.#rotations.used(decided);
  }

  oldCredential(decided: Decided): void {
    this.#rotations.used(decided);
  }

  rotated(key: Key, rotation: RotationStart): void {
    this.#parts.logger.rotationBegun(key, rotation);
  }

  lockedOut(address: string, forMs: number): void {
    const clientIp = networkOf(address);
    const time = this.#parts.clock.now();
    const expireTime = new Date(time + forMs).toISOString();
    this.#alerts.raise({
      id: `LOCKOUT:${clientIp}:${expireTime}`,
      type: 'LOCKOUT',
      time,
      keyId: '',
      clientIp,
      text: `${clientIp} is locked out after too many failures`,
      detail: { expire_time: expireTime },
    });
  }

  start(): void {
    this.#sweeper.start();
  }

  /** Ends all streams, which never end by themselves; clients reconnect elsewhere. */
  endStreams(): void {
    this.alertFeed.close();
    this.keyFeed.close();
  }

  /** Writes pending counts and closes everything. */
  async stop(): Promise<void> {
    this.endStreams();
    await this.#sweeper.stop();
    await this.#rotations.flush();
    await this.#anomalies.flush();
    await this.#alerts.stop();
  }
}

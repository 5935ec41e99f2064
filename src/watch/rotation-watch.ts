import { LRUCache } from 'lru-cache';
import { isWorkingSecret } from '../keys/check.ts';
import type { AlertLog } from '../keys/notices.ts';
import type { Decided } from '../keys/ports/observer.ts';
import type { OldUses, RotationLog } from '../keys/ports/rotations.ts';
import type { AlertRaiser } from './alert-raiser.ts';

const FLUSH_MS = 1_000;
const MAX_ROTATIONS = 10_000;
const HOUR_MS = 3_600_000;
/** A use after this share of the grace is late. */
const LATE = 0.8;
const MAX_REJECTED = 10_000;
/** The least time between two log lines about a rejected secret of the same key and address. */
const LOG_MS = 1_000;

export interface RotationLogger {
  /** An old secret was used in its grace. */
  oldUse(keyId: string, clientIp: string): void;
  /** An old secret was used after its grace. */
  oldRejected(keyId: string, clientIp: string): void;
}

export interface RotationWatchParts {
  readonly rotations: RotationLog;
  readonly alertLog: Pick<AlertLog, 'get'>;
  readonly alerts: Pick<AlertRaiser, 'raise'>;
  readonly logger: RotationLogger;
  readonly warn: (text: string, error: unknown) => void;
}

interface Rejected {
  loggedAt: number;
  alertedAt: number;
}

/** Counts the uses of old secrets, and raises alerts about late and rejected ones. */
export class RotationWatch {
  readonly #parts: RotationWatchParts;
  readonly #rejected = new LRUCache<string, Rejected>({ max: MAX_REJECTED });
  #uses = new Map<string, OldUses>();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #failing = false;

  constructor(parts: RotationWatchParts) {
    this.#parts = parts;
  }

  /** @param decided about a key, with a secret that is not its current one */
  used(decided: Decided): void {
    if (decided.dryRun || decided.key === undefined) return;
    if (decided.decision === 'ROTATED') this.#refused(decided);
    else if (decided.slot === 'PREVIOUS' && isWorkingSecret(decided.decision)) this.#inGrace(decided);
  }

  /** Writes pending counts of uses; those that cannot be written are logged, kept and retried. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(async () => {
      const uses = this.#uses;
      if (uses.size === 0) return;
      this.#uses = new Map();
      try {
        await this.#parts.rotations.addOldUses(uses);
        this.#failing = false;
      } catch (error) {
        if (!this.#failing) this.#parts.warn('uses of old secrets cannot be written, trying again', error);
        this.#failing = true;
        for (const [id, left] of uses) this.#count(id, left);
      }
    });
    return this.#writing;
  }

  #inGrace({ key, clientIp = '', time }: Decided): void {
    const rotation = key?.rotation;
    if (key === undefined || rotation === undefined) return;
    this.#parts.logger.oldUse(key.id, clientIp);
    this.#count(rotation.id, { uses: 1, lastTime: time, lastIp: clientIp });
    const { startTime, expireTime } = rotation;
    if (time - startTime <= LATE * (expireTime - startTime)) return;
    this.#parts.alerts.raise({
      id: `OLD_KEY_LATE_USE:${rotation.id}`,
      type: 'OLD_KEY_LATE_USE',
      time,
      keyId: key.id,
      clientIp,
      text: `the old secret of ${key.id} is still used, near the end of its grace`,
      detail: { rotation_id: rotation.id, expire_time: new Date(expireTime).toISOString() },
    });
  }

  #refused({ key, clientIp = '', time }: Decided): void {
    if (key === undefined) return;
    const place = `${key.id}:${clientIp}`;
    const seen = this.#rejected.get(place) ?? { loggedAt: -Infinity, alertedAt: -Infinity };
    this.#rejected.set(place, seen);
    if (time - seen.loggedAt >= LOG_MS) {
      seen.loggedAt = time;
      this.#parts.logger.oldRejected(key.id, clientIp);
    }
    if (time - seen.alertedAt < HOUR_MS) return;
    seen.alertedAt = time;
    void this.#alertRejected(place, key.id, clientIp, time, seen);
  }

  /**
   * The hour is part of the id, so that all processes use the same one; the previous hour's alert may cover this use.
   */
  async #alertRejected(place: string, keyId: string, clientIp: string, time: number, seen: Rejected) {
    const hour = Math.floor(time / HOUR_MS);
    const id = (of: number) => `OLD_KEY_REJECTED:${place}:${of}`;
    try {
      const before = await this.#parts.alertLog.get(id(hour - 1));
      if (before !== undefined && time - before.time < HOUR_MS) {
        seen.alertedAt = before.time;
        return;
      }
    } catch (error) {
      this.#parts.warn('alerts cannot be read; a use of an old secret may be reported twice', error);
    }
    this.#parts.alerts.raise({
      id: id(hour),
      type: 'OLD_KEY_REJECTED',
      time,
      keyId,
      clientIp,
      text: `an old secret of ${keyId} was used after its grace${clientIp === '' ? '' : ` from ${clientIp}`}`,
      detail: {},
    });
  }

  #count(rotationId: string, { uses, lastTime, lastIp }: OldUses): void {
    const counted = this.#uses.get(rotationId);
    if (counted === undefined && this.#uses.size >= MAX_ROTATIONS) return;
    this.#uses.set(rotationId, { uses: uses + (counted?.uses ?? 0), lastTime, lastIp });
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS).unref();
  }
}

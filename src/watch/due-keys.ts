import type { Key } from '../keys/key.ts';
import type { Alert } from '../keys/notices.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { DueTime, KeyStore } from '../keys/ports/key-store.ts';
import type { RotationLog } from '../keys/ports/rotations.ts';
import { CLEANUP_MS, rotationDueTime } from '../keys/rotation.ts';
import type { AlertRaiser } from './alert-raiser.ts';

const DAY_MS = 86_400_000;
const PAGE = 500;
/** Work of one sweep for one kind of time: keys read, and new alerts. The next sweep does the rest. */
const MAX_KEYS = 100_000;
const MAX_ALERTS = 2_500;
/** How far another process's clock may be behind; beyond a minute, settled-time.ts stops all sweeps. */
const APART_MS = 120_000;

type Cursor = readonly (string | number)[] | undefined;

/** One pass over all keys of a kind, which may take several sweeps. */
interface Round {
  /** The start of a pass: keys before it are done for good. */
  begin: Cursor;
  /** Where the next sweep continues. */
  at: Cursor;
  /** When the pass began. */
  time: number;
}

export interface DueKeysParts {
  readonly keys: Pick<KeyStore, 'due'>;
  readonly rotations: Pick<RotationLog, 'noteGraceEnded'>;
  readonly alerts: Pick<AlertRaiser, 'raise'>;
  /** Completes the key's rotation, if its grace is over. */
  readonly complete: (key: Key) => Promise<void>;
  /** Called once per rotation, when its grace has ended. */
  readonly graceEnded: (key: Key) => void;
  readonly clock: Clock;
  /** ROTATION_AUTO_CLEANUP. */
  readonly autoCleanup: boolean;
}

/** Handles keys as time passes: rotations that are over or due, and alerts before keys expire. */
export class DueKeys {
  readonly #parts: DueKeysParts;
  readonly #rounds: Partial<Record<DueTime, Round>> = {};
  /** This process has noted the end of each grace that was over by this time. */
  #notedUntil = Number.NEGATIVE_INFINITY;

  constructor(parts: DueKeysParts) {
    this.#parts = parts;
  }

  async sweep(): Promise<void> {
    const now = this.#parts.clock.now();
    // A clock that was set back may well be right, so older ends are noted again.
    this.#notedUntil = Math.min(this.#notedUntil, now - APART_MS);
    const round = await this.#each('ROTATION_GRACE', now, now, (key) => this.#graceOver(key, now));
    if (round !== undefined) this.#notedUntil = round - APART_MS;
    await this.#each('ROTATION', now, now, async (key) => this.#rotationDue(key, now));
    // A key whose expire_time was moved before `begin` is over too, or is found after the next start.
    const over = ({ expireTime }: Key) => expireTime !== undefined && expireTime <= now;
    await this.#each('EXPIRY', now, now + 7 * DAY_MS, async (key) => this.#expiring(key, now), over);
  }

  /**
   * Continues the pass where the previous sweep stopped.
   * @param handle returns whether it raised a new alert
   * @param over whether a key need not be read again
   * @returns when the pass began, if it is complete
   */
  async #each(
    kind: DueTime,
    now: number,
    until: number,
    handle: (key: Key) => Promise<boolean>,
    over: (key: Key) => boolean = () => false,
  ): Promise<number | undefined> {
    this.#rounds[kind] ??= { begin: undefined, at: undefined, time: now };
    const round = this.#rounds[kind];
    if (round.at === round.begin) round.time = now;
    let raised = 0;
    for (let seen = 0; seen < MAX_KEYS && raised < MAX_ALERTS; ) {
      const { items, next } = await this.#parts.keys.due(kind, until, { size: PAGE, after: round.at });
      for (const key of items) if (await handle(key)) raised++;
      if (next === undefined) {
        round.at = round.begin;
        return round.time;
      }
      if (round.at === round.begin && items.every(over)) round.begin = next;
      round.at = next;
      seen += items.length;
    }
    return undefined;
  }

  async #graceOver(key: Key, now: number): Promise<boolean> {
    const { rotation } = key;
    if (rotation === undefined) return false;
    const { rotations, graceEnded, complete, autoCleanup, alerts } = this.#parts;
    if (rotation.expireTime > this.#notedUntil && (await rotations.noteGraceEnded(rotation.id)))
      graceEnded(key);
    const cleanup = now >= rotation.expireTime + CLEANUP_MS;
    if (rotation.mode === 'FORCED' || (cleanup && autoCleanup)) {
      await complete(key);
      return false;
    }
    if (!cleanup) return false;
    const what = `the rotation of ${key.id} was not completed 7 days after its grace`;
    const detail = { rotation_id: rotation.id, expire_time: iso(rotation.expireTime) };
    return alerts.raise(about(key, 'ROTATION_NOT_CLEANED_UP', rotation.id, now, what, detail));
  }

  #rotationDue(key: Key, now: number): boolean {
    const due = rotationDueTime(key);
    // An expired key needs no new secret.
    if (due === undefined || key.expired || (key.expireTime !== undefined && key.expireTime <= now))
      return false;
    const what = `the secret of ${key.id} is due for rotation`;
    const detail = { rotation_due_time: iso(due) };
    return this.#parts.alerts.raise(about(key, 'ROTATION_DUE', `${key.id}:${due}`, now, what, detail));
  }

  #expiring(key: Key, now: number): boolean {
    const { expireTime } = key;
    if (expireTime === undefined || key.expired || expireTime <= now) return false;
    const days = expireTime - now <= DAY_MS ? 1 : 7;
    // A key with a shorter life than the notice needs no notice.
    if (expireTime - key.createTime <= days * DAY_MS) return false;
    const within = days === 1 ? 'a day' : '7 days';
    const detail = { days: String(days), expire_time: iso(expireTime) };
    const subject = `${key.id}:${expireTime}:${days}`;
    const what = `key ${key.id} expires within ${within}`;
    return this.#parts.alerts.raise(about(key, 'KEY_EXPIRING', subject, now, what, detail));
  }
}

function about(
  key: Key,
  type: Alert['type'],
  subject: string,
  time: number,
  text: string,
  detail: Record<string, string>,
): Alert {
  return { id: `${type}:${subject}`, type, time, keyId: key.id, clientIp: '', text, detail };
}

function iso(time: number): string {
  return new Date(time).toISOString();
}

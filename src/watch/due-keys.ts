import type { Key } from '../keys/key.ts';
import type { Alert } from '../keys/notices.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { DueTime, KeyStore } from '../keys/ports/key-store.ts';
import type { RotationLog } from '../keys/ports/rotations.ts';
import { CLEANUP_MS, rotationDueTime } from '../keys/rotation.ts';
import type { AlertRaiser } from './alert-raiser.ts';

const DAY_MS = 86_400_000;
const PAGE = 500;
/** Keys looked at in one sweep for one kind of time; the rest come with the next. */
const MAX_KEYS = 100_000;

interface Look {
  /** Where it begins. */
  readonly after: readonly (string | number)[] | undefined;
  /** Keys that need not be looked at again. */
  readonly over: (key: Key) => boolean;
}

export interface DueKeysParts {
  readonly keys: Pick<KeyStore, 'due'>;
  readonly rotations: Pick<RotationLog, 'noteGraceEnded'>;
  readonly alerts: Pick<AlertRaiser, 'raise'>;
  /** Completes the rotation the key is in, if its grace is over. */
  readonly complete: (key: Key) => Promise<void>;
  /** Told once a rotation: its grace has ended. */
  readonly graceEnded: (key: Key) => void;
  readonly clock: Clock;
  /** ROTATION_AUTO_CLEANUP. */
  readonly autoCleanup: boolean;
}

/** What the passing of time does to keys: rotations that are over or due, and notices before keys expire. */
export class DueKeys {
  readonly #parts: DueKeysParts;
  /** Rotations whose end this process has noted. */
  #ended = new Set<string>();
  /** Where the look for keys that expire goes on: those before it are over, and stay over. */
  #expired: readonly (string | number)[] | undefined;

  constructor(parts: DueKeysParts) {
    this.#parts = parts;
  }

  async sweep(): Promise<void> {
    const now = this.#parts.clock.now();
    const ended = this.#ended;
    this.#ended = new Set();
    await this.#each('ROTATION_GRACE', now, (key) => this.#graceOver(key, now, ended));
    await this.#each('ROTATION', now, async (key) => this.#rotationDue(key, now));
    // A key whose time was changed to one before the cursor is over too, or is found again at the next start.
    this.#expired = await this.#each('EXPIRY', now + 7 * DAY_MS, async (key) => this.#expiring(key, now), {
      after: this.#expired,
      over: (key) => key.expireTime !== undefined && key.expireTime <= now,
    });
  }

  /** @returns the end of the pages that held only keys that are over, for the next look to begin there */
  async #each(
    kind: DueTime,
    until: number,
    handle: (key: Key) => Promise<void>,
    { after: start, over }: Look = { after: undefined, over: () => false },
  ): Promise<Look['after']> {
    let after = start;
    let done = start;
    for (let seen = 0; seen < MAX_KEYS; ) {
      const page = await this.#parts.keys.due(kind, until, { size: PAGE, after });
      for (const key of page.items) await handle(key);
      if (done === after && page.next !== undefined && page.items.every(over)) done = page.next;
      if (page.next === undefined) break;
      after = page.next;
      seen += page.items.length;
    }
    return done;
  }

  async #graceOver(key: Key, now: number, ended: ReadonlySet<string>): Promise<void> {
    const { rotation } = key;
    if (rotation === undefined) return;
    const { rotations, graceEnded, complete, autoCleanup, alerts } = this.#parts;
    if (!ended.has(rotation.id) && (await rotations.noteGraceEnded(rotation.id))) graceEnded(key);
    this.#ended.add(rotation.id);
    const cleanup = now >= rotation.expireTime + CLEANUP_MS;
    if (rotation.mode === 'FORCED' || (cleanup && autoCleanup)) return complete(key);
    if (!cleanup) return;
    const what = `the rotation of ${key.id} was not completed 7 days after its grace`;
    const detail = { rotation_id: rotation.id, expire_time: iso(rotation.expireTime) };
    alerts.raise(about(key, 'ROTATION_NOT_CLEANED_UP', rotation.id, now, what, detail));
  }

  #rotationDue(key: Key, now: number): void {
    const due = rotationDueTime(key);
    // An ended key needs no new secret.
    if (due === undefined || key.expired || (key.expireTime !== undefined && key.expireTime <= now)) return;
    const what = `the secret of ${key.id} is due for rotation`;
    const detail = { rotation_due_time: iso(due) };
    this.#parts.alerts.raise(about(key, 'ROTATION_DUE', `${key.id}:${due}`, now, what, detail));
  }

  #expiring(key: Key, now: number): void {
    const { expireTime } = key;
    if (expireTime === undefined || key.expired || expireTime <= now) return;
    const days = expireTime - now <= DAY_MS ? 1 : 7;
    // A key made for less than that was never meant to be noticed.
    if (expireTime - key.createTime <= days * DAY_MS) return;
    const within = days === 1 ? 'a day' : '7 days';
    const detail = { days: String(days), expire_time: iso(expireTime) };
    const subject = `${key.id}:${expireTime}:${days}`;
    const what = `key ${key.id} expires within ${within}`;
    this.#parts.alerts.raise(about(key, 'KEY_EXPIRING', subject, now, what, detail));
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

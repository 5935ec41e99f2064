import type { Clock } from '../../keys/ports/clock.ts';
import type { Lending, LocalUse, LocalUses } from '../../keys/ports/guards.ts';
import type { RecentChanges } from '../recent-changes.ts';
import type { Committer } from './committer.ts';
import type { SqliteDatabase } from './database.ts';
import { unavailable } from './errors.ts';

const LONGEST = 'guard_lease_ms';
/** A holder's clock may run a fifth slower than this one. */
const DRIFT = 1.2;
const MARGIN_MS = 20;

interface SqliteLendingParts {
  readonly database: SqliteDatabase;
  readonly committer: Committer;
  readonly recent: RecentChanges;
  readonly leaseMs: number;
  /** By the monotonic clock, when this process took the lock of the store. */
  readonly lockTaken: number;
}

/** The only process on the store lends leases of its own, and waits for them itself (leases/guards.ts). */
export class SqliteLending implements Lending {
  readonly secret: string;
  readonly pollMs: number;
  readonly holdMs: number;
  readonly lentBeforeUntil: number | undefined;
  readonly #committer: Committer;
  readonly #recent: RecentChanges;
  readonly #leaseMs: number;
  /** The longest lease ever lent by a process on this file, as the file says. */
  #longest: number;
  #marking: Promise<void> | undefined;

  constructor({ database, committer, recent, leaseMs, lockTaken }: SqliteLendingParts) {
    const read = database.pointRead('SELECT value FROM api_key_meta WHERE id = ?');
    this.secret = String(read('guard_secret')?.[0]);
    this.#longest = Number(read(LONGEST)?.[0] ?? 0);
    this.lentBeforeUntil = this.#longest === 0 ? undefined : lockTaken + this.#longest * DRIFT + MARGIN_MS;
    this.#committer = committer;
    this.#recent = recent;
    this.#leaseMs = leaseMs;
    this.pollMs = leaseMs / 4;
    this.holdMs = leaseMs / 4;
  }

  ready(): Promise<void> {
    if (this.#longest >= this.#leaseMs) return Promise.resolve();
    this.#marking ??= this.#mark().finally(() => {
      this.#marking = undefined;
    });
    return this.#marking;
  }

  async #mark(): Promise<void> {
    const sql = 'INSERT INTO api_key_meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value';
    const { outcome } = await this.#committer.write([{ sql, params: [LONGEST, this.#leaseMs] }]);
    if (outcome !== 'DONE') throw unavailable('the mark of leases was not written');
    this.#longest = this.#leaseMs;
  }

  lend(cursor: number) {
    return { ...this.#recent.since(cursor), leaseMs: this.#leaseMs };
  }

  changed(cursor: number, ms: number, signal: AbortSignal): Promise<void> {
    return this.#recent.changed(cursor, ms, signal);
  }
}

/** Each use is written in one transaction with the row that makes it unique. */
export class SqliteLocalUses implements LocalUses {
  readonly #committer: Committer;
  readonly #clock: Clock;

  constructor(committer: Committer, clock: Clock) {
    this.#committer = committer;
    this.#clock = clock;
  }

  async record(uses: readonly LocalUse[]): Promise<void> {
    const now = this.#clock.now();
    const sql = 'INSERT INTO api_key_local_uses VALUES (?, ?)';
    // A use that is not unique was recorded before.
    await Promise.all(
      uses.map(({ id, entry }) => this.#committer.write([{ sql, params: [id, now] }], entry)),
    );
  }
}

/** Drops the rows of uses that are too old to be accepted again. */
export const DROP_LOCAL_USES = 'DELETE FROM api_key_local_uses WHERE time < ?';
export const KEEP_LOCAL_USES_MS = 2 * 86_400_000;

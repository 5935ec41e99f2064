import type { AuditEntry } from './audit.ts';

/** A change that guards must learn of. */
export interface RecentChange {
  readonly revision: number;
  readonly keyId: string;
}

/** The changes after a cursor and the lease that may be lent with them, both of one moment. */
export interface Lendable {
  readonly revision: number;
  /** In order; undefined when changes after the cursor are no longer known. */
  readonly changes: readonly RecentChange[] | undefined;
  /** 0: no lease may be lent now. */
  readonly leaseMs: number;
}

/** The store's part in lending leases to guards (docs/design/local-validation.md). */
export interface Lending {
  /** The key of grant tokens, the same for all processes on the store. */
  readonly secret: string;
  /** How soon a guard should ask again after an answer, in ms. */
  readonly pollMs: number;
  /** The longest time that a question may be held until there is a change, in ms; 0: not at all. */
  readonly holdMs: number;
  /** Resolves when a lease may be lent: a mark of the longest one ever lent is durable. */
  ready(): Promise<void>;
  /** In one turn, without a wait. */
  lend(cursor: number): Lendable;
  /** Resolves when a key that guards may know has changed after the cursor, or after `ms`. */
  changed(cursor: number, ms: number, signal: AbortSignal): Promise<void>;
  /**
   * For a start, by the monotonic clock: until then guards may hold leases that a process before this one lent.
   * Undefined where the leases of processes are registered in the store.
   */
  readonly lentBeforeUntil: number | undefined;
}

/** Decisions that a guard made by itself. */
export interface LocalUse {
  /** The calling key, the guard and the number of the use: the same when the use is sent again. */
  readonly id: string;
  readonly entry: AuditEntry;
}

export interface LocalUses {
  /** Resolves when each use has exactly one durable event, however often and to how many processes it is sent. */
  record(uses: readonly LocalUse[]): Promise<void>;
}

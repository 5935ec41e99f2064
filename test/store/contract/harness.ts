import type { ChainRow } from '../../../src/keys/ports/audit.ts';
import type { Clock } from '../../../src/keys/ports/clock.ts';
import type { Store } from '../../../src/store/store.ts';

/** swapped: with the next row. truncated: it and what comes after it. headless: also the note of where the chain ends. */
export type Tampering = 'changed' | 'removed' | 'swapped' | 'inserted' | 'truncated' | 'headless';

/** What a database must give to be judged by the contract. */
export interface Adapter {
  readonly name: string;
  /** A URL of an empty database of its own. */
  freshUrl(): string;
  open(url: string, clock: Clock, chainKey?: Uint8Array): Promise<Store>;
  /** Does something to a row of the audit behind the back of a store that is closed. */
  tamper(url: string, how: Tampering, row: Pick<ChainRow, 'id' | 'processId' | 'sequence'>): Promise<void>;
  /**
   * Takes a closed store's counts of decisions back. ROUND_CUT_SHORT: as if it had been killed before the last count
   * and the end of the last round were written. ALL: as if it had never counted.
   */
  forgetUsage(url: string, what: 'ROUND_CUT_SHORT' | 'ALL'): Promise<void>;
  /** False where the database serves one process: two stores on one URL cannot be had. */
  readonly severalProcesses: boolean;
  /** Where counters go by the database's own clock, which no test can move. */
  readonly ownClock: boolean;
}

export const LOCKOUT = { maxAttempts: 5, windowSeconds: 900 };
export const LEASE = { pollMs: 50, leaseMs: 1_000, caches: true };

import type { AuditEntry } from '../keys/ports/audit.ts';

export const HOUR_MS = 3_600_000;

/** What of an event is counted. */
export type Use = Pick<AuditEntry, 'keyId' | 'time' | 'outcome' | 'dryRun'>;

/** What is counted together: one key, one hour, one decision. The key '' stands for all of them. */
export interface UsageCount {
  readonly keyId: string;
  /** Its beginning, milliseconds since 1970. */
  readonly hour: number;
  readonly outcome: string;
  /** Events since the last round. */
  count: number;
}

/** Counts that are being written: those of all events up to `end`, a place in the log. */
export interface UsageRound {
  readonly end: number;
  readonly left: UsageCount[];
}

/** Whether an event is a use: a decision that was not a dry run. */
export function isUse({ outcome, dryRun }: Pick<AuditEntry, 'outcome' | 'dryRun'>): boolean {
  return !dryRun && outcome.startsWith('DECISION_');
}

/**
 * Counts the events of a log in the order of their places. The counts are written in rounds: each row is written with
 * the place that its round reaches, and a row that has reached this place already is left as it is. So a round may be
 * written twice, and after a crash it is made again from the log.
 */
export class UsageCounter {
  #counts = new Map<string, UsageCount>();
  #last = 0;
  #round: UsageRound | undefined;

  /** Counts an event that is durable. @param place above that of the event before */
  add(entry: Use, place: number): void {
    this.#last = place;
    if (!isUse(entry)) return;
    const hour = Math.floor(entry.time / HOUR_MS) * HOUR_MS;
    this.#count('', hour, entry.outcome);
    if (entry.keyId !== '') this.#count(entry.keyId, hour, entry.outcome);
  }

  get inRound(): boolean {
    return this.#round !== undefined;
  }

  /** Counts in memory that are in no round yet. */
  get size(): number {
    return this.#counts.size;
  }

  /** The round under way, or a new one with all that was counted; undefined when nothing was. */
  round(): UsageRound | undefined {
    if (this.#round === undefined && this.#last > 0) {
      this.#round = { end: this.#last, left: [...this.#counts.values()].sort(byPlaceInTable) };
      this.#counts = new Map();
      this.#last = 0;
    }
    return this.#round;
  }

  /** Every row of the round is written, and so is its end. */
  finished(): void {
    this.#round = undefined;
  }

  #count(keyId: string, hour: number, outcome: string): void {
    const name = `${keyId} ${hour} ${outcome}`;
    const counted = this.#counts.get(name);
    if (counted === undefined) this.#counts.set(name, { keyId, hour, outcome, count: 1 });
    else counted.count++;
  }
}

function byPlaceInTable(a: UsageCount, b: UsageCount): number {
  if (a.keyId !== b.keyId) return a.keyId < b.keyId ? -1 : 1;
  if (a.hour !== b.hour) return a.hour - b.hour;
  return a.outcome < b.outcome ? -1 : 1;
}

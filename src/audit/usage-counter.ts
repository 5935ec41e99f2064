import type { AuditEntry } from '../keys/ports/audit.ts';

export const HOUR_MS = 3_600_000;

/** The fields of an event that counting needs. */
export type Use = Pick<AuditEntry, 'keyId' | 'time' | 'outcome' | 'dryRun' | 'count'>;

/** The count for one key, hour and decision. The key '' stands for all keys. */
export interface UsageCount {
  readonly keyId: string;
  /** The start of the hour, in milliseconds since 1970. */
  readonly hour: number;
  readonly outcome: string;
  /** The number of calls since the last round. */
  count: number;
}

/** Counts to write: of all events since the last round up to `end`, a place in the log. */
export interface UsageRound {
  readonly end: number;
  readonly left: UsageCount[];
}

/** Whether an event is a use: a decision that was not a dry run. */
export function isUse({ outcome, dryRun }: Pick<AuditEntry, 'outcome' | 'dryRun'>): boolean {
  return !dryRun && (outcome.startsWith('DECISION_') || outcome.startsWith(LOCAL));
}

const LOCAL = 'LOCAL_';

/** The decision of a use: that of a guard counts like that of a server. */
export function decisionOfUse(outcome: string): string {
  return outcome.startsWith(LOCAL) ? `DECISION_${outcome.slice(LOCAL.length)}` : outcome;
}

/**
 * Counts the events of a log in the order of their places. The counts are written in rounds: each row is written with
 * the end of its round, and a row that has this end already is skipped. So a round may be written twice, and after a
 * crash it is counted again from the log.
 */
export class UsageCounter {
  #counts = new Map<string, UsageCount>();
  #last = 0;
  #round: UsageRound | undefined;

  /** Counts a durable event. @param place greater than the place of the previous event */
  add(entry: Use, place: number): void {
    this.#last = place;
    if (!isUse(entry)) return;
    const hour = Math.floor(entry.time / HOUR_MS) * HOUR_MS;
    const decision = decisionOfUse(entry.outcome);
    const calls = Math.max(1, entry.count);
    this.#count('', hour, decision, calls);
    if (entry.keyId !== '') this.#count(entry.keyId, hour, decision, calls);
  }

  get inRound(): boolean {
    return this.#round !== undefined;
  }

  /** The number of counts that are in no round yet. */
  get size(): number {
    return this.#counts.size;
  }

  /** The current round, or a new one with all counts; undefined when nothing was counted. */
  round(): UsageRound | undefined {
    if (this.#round === undefined && this.#last > 0) {
      this.#round = { end: this.#last, left: [...this.#counts.values()].sort(byPlaceInTable) };
      this.#counts = new Map();
      this.#last = 0;
    }
    return this.#round;
  }

  /** Must be called when every row of the round and its end are written. */
  finished(): void {
    this.#round = undefined;
  }

  #count(keyId: string, hour: number, outcome: string, calls: number): void {
    const name = `${keyId} ${hour} ${outcome}`;
    const counted = this.#counts.get(name);
    if (counted === undefined) this.#counts.set(name, { keyId, hour, outcome, count: calls });
    else counted.count += calls;
  }
}

function byPlaceInTable(a: UsageCount, b: UsageCount): number {
  if (a.keyId !== b.keyId) return a.keyId < b.keyId ? -1 : 1;
  if (a.hour !== b.hour) return a.hour - b.hour;
  return a.outcome < b.outcome ? -1 : 1;
}

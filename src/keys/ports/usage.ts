/** Decisions of one kind in one hour or day. */
export interface UsageRow {
  /** The beginning of the hour or day, UTC, milliseconds since 1970. */
  readonly time: number;
  /** `DECISION_VALID` and the like, as the audit's outcome. */
  readonly outcome: string;
  readonly count: number;
}

export interface UsageFilter {
  /** One key; without keyId and ownerId, the decisions about all keys and about none. */
  readonly keyId?: string;
  /** The keys that belong to this owner now. */
  readonly ownerId?: string;
  /** Inclusive, a full hour. */
  readonly startTime: number;
  /** Exclusive, a full hour. */
  readonly endTime: number;
}

/** Counts of decisions by key and hour, derived from the audit and kept longer than its events. */
export interface UsageLog {
  /** Writes the counts of this process. A later read shows every event that was durable before. */
  flush(): Promise<void>;
  /** By time, then by outcome. @param stepMs an hour or a day */
  read(filter: UsageFilter, stepMs: number): Promise<readonly UsageRow[]>;
  /** Deletes up to `limit` counts of hours before `time`; returns how many. */
  deleteBefore(time: number, limit: number): Promise<number>;
}

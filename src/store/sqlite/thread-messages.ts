/** What the process and the two threads behind the embedded store tell each other. */
export type Value = string | number | null;

/** A statement of a guarded write. With `mustReturn`, no returned row means that the guard failed. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly Value[];
  readonly mustReturn?: boolean;
}

/** All of it or nothing of it, with its event. */
export interface GuardedWrite {
  readonly statements: readonly Statement[];
  /** As in CommitRequest; '' for maintenance. */
  readonly event: string;
}

export type GuardedResult =
  | { readonly outcome: 'DONE'; readonly rows: readonly (Record<string, Value> | undefined)[] }
  | { readonly outcome: 'GUARD_FAILED' }
  /** `what` is the `table.column` that is not unique. */
  | { readonly outcome: 'NOT_UNIQUE'; readonly what: string }
  /** This write cannot be made; those beside it in the batch were. */
  | { readonly outcome: 'FAILED'; readonly message: string };

/** What a guarded write comes to that is no failure. */
export type WriteResult = Exclude<GuardedResult, { readonly outcome: 'FAILED' }>;

/** What the next transaction does for these tables. */
export interface DeferredPart {
  /** A row of the journal: table number, key and value in turn, as JSON; '' for none. */
  readonly journal: string;
  readonly journalId: number;
  /** A part of each table: the statement for a row, and key and value in turn, in the order of the table. */
  readonly folds: readonly { readonly sql: string; readonly rows: readonly Value[] }[];
  /** Journal rows up to this one are no longer needed; 0 for none. */
  readonly forget: number;
}

export interface CommitRequest {
  readonly kind: 'commit';
  readonly id: number;
  /** Events without a mutation, a line each: the time and, right after it, eventText. One string is cheap to hand over. */
  readonly events: string;
  readonly guarded: readonly GuardedWrite[];
  readonly deferred: DeferredPart;
}

export interface QueryRequest {
  readonly kind: 'query';
  readonly id: number;
  readonly sql: string;
  readonly params: readonly Value[];
}

/** Writes some of the counts of decisions; returns whether there are more. */
export interface UsageRequest {
  readonly kind: 'usage';
  readonly id: number;
}

export type ThreadRequest =
  | CommitRequest
  | QueryRequest
  | UsageRequest
  | { readonly kind: 'close'; readonly id: number };
export type ThreadReply =
  | { readonly id: number; readonly result: unknown }
  | {
      readonly id: number;
      readonly error: { readonly message: string; readonly errcode: number | undefined };
    };

export interface ThreadData {
  readonly path: string;
  readonly role: 'writer' | 'reader';
  readonly processId: string;
  /** Of the audit's HMAC. */
  readonly chainKey: Uint8Array | undefined;
}

/** The messages between the process and the two threads of the embedded store. */
export type Value = string | number | null;

/** A statement of a guarded write. With `mustReturn`, the guard fails when no row is returned. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly Value[];
  readonly mustReturn?: boolean;
}

/** Statements and their event, which are committed together or not at all. */
export interface GuardedWrite {
  readonly statements: readonly Statement[];
  /** One line as in CommitRequest; '' for maintenance. */
  readonly event: string;
}

export type GuardedResult =
  | { readonly outcome: 'DONE'; readonly rows: readonly (Record<string, Value> | undefined)[] }
  | { readonly outcome: 'GUARD_FAILED' }
  /** `what` is the `table.column` whose value is not unique. */
  | { readonly outcome: 'NOT_UNIQUE'; readonly what: string }
  /** Only this write of the batch failed. */
  | { readonly outcome: 'FAILED'; readonly message: string };

/** The result of a guarded write that did not fail. */
export type WriteResult = Exclude<GuardedResult, { readonly outcome: 'FAILED' }>;

/** The writes of one transaction for the deferred tables. */
export interface DeferredPart {
  /** One row of the journal: table index, key and value in turn, as JSON; '' for none. */
  readonly journal: string;
  readonly journalId: number;
  /** One part of each table: the statement for a row, and key and value in turn, in the table's order. */
  readonly folds: readonly { readonly sql: string; readonly rows: readonly Value[] }[];
  /** Deletes journal rows up to this id; 0 for none. */
  readonly forget: number;
}

export interface CommitRequest {
  readonly kind: 'commit';
  readonly id: number;
  /** Events without a mutation, one per line: the time directly followed by eventText. One string is cheap to post. */
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

/** Writes some of the counts of decisions; the reply says whether there are more. */
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
  /** The key of the audit chain's HMAC. */
  readonly chainKey: Uint8Array | undefined;
}

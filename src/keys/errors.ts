/** Every way a call can fail without a decision. Clients see these words as ErrorInfo.reason; they never change. */
export type ErrorCode =
  | 'INVALID_REQUEST'
  | 'MESSAGE_TOO_LARGE'
  | 'REQUEST_NOT_RECEIVED'
  | 'ENCODING_UNKNOWN'
  | 'CREDENTIAL_MISSING'
  | 'CREDENTIAL_INVALID'
  | 'SECRET_NOT_WORKING'
  | 'SCOPE_MISSING'
  | 'SCOPE_NOT_HELD'
  | 'KEY_NOT_FOUND'
  | 'LOCKOUT_NOT_FOUND'
  | 'ANOMALY_NOT_FOUND'
  | 'INTEGRATION_OFF'
  | 'REMOTE_UNAUTHENTICATED'
  | 'REMOTE_REFUSED'
  | 'REMOTE_NOT_FOUND'
  | 'REMOTE_EXISTS'
  | 'REMOTE_AMBIGUOUS'
  | 'REMOTE_RATE_LIMITED'
  | 'REMOTE_ANSWER_UNREADABLE'
  | 'REMOTE_TIMEOUT'
  | 'REMOTE_UNAVAILABLE'
  | 'REQUEST_ID_USED'
  | 'KEY_REVOKED'
  | 'KEY_EXPIRED'
  | 'ROTATION_IN_PROGRESS'
  | 'NO_ROTATION'
  | 'GRACE_OUT_OF_BOUNDS'
  | 'REVISION_NOT_REACHED'
  | 'ETAG_MISMATCH'
  | 'TOO_MUCH_CONTENTION'
  | 'CALLER_RATE_LIMITED'
  | 'PEER_LOCKED_OUT'
  | 'TOO_MANY_WRONG_CREDENTIALS'
  | 'SUBSCRIBER_TOO_SLOW'
  | 'TOO_MANY_SUBSCRIBERS'
  | 'TOO_MANY_VERIFICATIONS'
  | 'LEASES_OFF'
  | 'TOO_MANY_GUARDS'
  | 'BACKUP_OFF'
  | 'BACKUP_NOT_HERE'
  | 'BACKUP_EXISTS'
  | 'BACKUP_UNDER_WAY'
  | 'BACKUP_NOT_WRITTEN'
  | 'SERVER_STOPPING'
  | 'SERVER_OVERLOADED'
  | 'AUDIT_OVERLOADED'
  | 'QUOTA_OVERLOADED'
  | 'AUDIT_UNAVAILABLE'
  | 'STORE_UNAVAILABLE'
  | 'INTERNAL';

export interface FieldViolation {
  /** Path of the field, in proto names. */
  readonly field: string;
  readonly description: string;
}

export interface ErrorFacts {
  readonly violations?: readonly FieldViolation[];
  /** Set when a retry makes sense. */
  readonly retryAfterMs?: number;
  /** The key the error is about. */
  readonly keyId?: string;
  /** Facts for programs, sent as ErrorInfo.metadata. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** The call failed, but its event is, or will be, in the log. */
  readonly audited?: boolean;
  /** For the server's own log only; never sent. */
  readonly cause?: unknown;
}

/** A failure whose text may be sent to clients; its cause may not. */
export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly facts: ErrorFacts;

  constructor(code: ErrorCode, publicText: string, facts: ErrorFacts = {}) {
    super(publicText, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = 'ApiError';
    this.code = code;
    this.facts = facts;
  }
}

/** Errors travel in trailers, and clients bound the size of those. */
const MAX_TOLD = 32;

/** Collects what is wrong with a request, to report all at once: the first 32 violations, and their number. */
export class Violations {
  readonly #found: FieldViolation[] = [];
  #count = 0;

  add(field: string, description: string): void {
    this.#count++;
    if (this.#found.length < MAX_TOLD) this.#found.push({ field, description });
  }

  get found(): readonly FieldViolation[] {
    return this.#found;
  }

  throwIfAny(): void {
    const first = this.#found[0];
    if (first === undefined) return;
    const more = this.#count > 1 ? ` (and ${this.#count - 1} more)` : '';
    throw new ApiError('INVALID_REQUEST', `${first.field}: ${first.description}${more}`, {
      violations: this.#found,
    });
  }
}

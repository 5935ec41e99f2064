import { ApiError } from '../keys/errors.ts';
import type { RevocationRecord } from '../keys/ports/revocations.ts';

/** What the log knows, without its records. Revisions are those of the store. */
export interface LogReach {
  /** The log holds every change after this revision. */
  readonly begins: number;
  /** Every change up to this revision is in the log, unless it was made before the log began. */
  readonly covered: number;
  /** The newest revision that the log has heard of. */
  readonly highest: number;
}

/** How keys stood when they were last narrowed or rotated, kept outside the store and its backups. */
export interface RevocationLog {
  /** Undefined while the log has not begun. */
  reach(): Promise<LogReach | undefined>;
  /** Begins an empty log. */
  begin(revision: number): Promise<void>;
  /** Resolves when the record is durable; rejects when it is not yet: then it is tried again with the next one. */
  append(record: RevocationRecord): Promise<void>;
  /** Resolves when everything that was to be appended is durable. */
  settled(): Promise<void>;
  /** Notes that every change up to this revision is in the log. */
  cover(revision: number): Promise<void>;
  /** The newest record of each key that has one after this revision, with all hashes that are known to be retired. */
  since(revision: number): Promise<ReadonlyMap<string, RevocationRecord>>;
  /** The newest revision that the log has of each of these keys. */
  revisionsOf(keyIds: ReadonlySet<string>): Promise<ReadonlyMap<string, number>>;
  /** The furthest place in each chain that a record names. */
  places(): Promise<ReadonlyMap<string, number>>;
  close(): Promise<void>;
}

/** What a caller is told whose change may stand in the store, and is not in the log. */
export function notNoted(cause: unknown): ApiError {
  const text = 'REVOCATION_LOG cannot be written: the change may stand in the store already';
  return new ApiError('STORE_UNAVAILABLE', text, { retryAfterMs: 1000, audited: true, cause });
}

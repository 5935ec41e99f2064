import { ApiError } from '../keys/errors.ts';
import type { RevocationRecord } from '../keys/ports/revocations.ts';

/** Which changes the log covers. Revisions are the store's. */
export interface LogReach {
  /** The log holds every change after this revision. */
  readonly begins: number;
  /** Every change up to this revision is in the log, unless it was made before the log began. */
  readonly covered: number;
  /** The newest revision in the log. */
  readonly highest: number;
}

/** The state of each key when it was last narrowed or rotated, kept outside the store and its backups. */
export interface RevocationLog {
  /** Undefined while the log has not begun. */
  reach(): Promise<LogReach | undefined>;
  /** Begins an empty log. */
  begin(revision: number): Promise<void>;
  /** Resolves when the record is durable. A rejected record is written again with the next one. */
  append(record: RevocationRecord): Promise<void>;
  /** Resolves when all records passed to `append` are durable. */
  settled(): Promise<void>;
  /** Records that every change up to this revision is in the log. */
  cover(revision: number): Promise<void>;
  /** The newest record of each key changed after this revision, with all known retired hashes of the key. */
  since(revision: number): Promise<ReadonlyMap<string, RevocationRecord>>;
  /** The newest revision in the log for each of these keys. */
  revisionsOf(keyIds: ReadonlySet<string>): Promise<ReadonlyMap<string, number>>;
  /** The highest sequence that a record names, for each audit chain. */
  places(): Promise<ReadonlyMap<string, number>>;
  close(): Promise<void>;
}

/** The error for a change that may be in the store already, but is not in the log. */
export function notNoted(cause: unknown): ApiError {
  const text = 'REVOCATION_LOG cannot be written: the change may stand in the store already';
  return new ApiError('STORE_UNAVAILABLE', text, { retryAfterMs: 1000, audited: true, cause });
}

import {
  type CommandOperationOptions,
  MongoError,
  MongoNetworkError,
  MongoServerError,
  MongoServerSelectionError,
  MongoWriteConcernError,
} from 'mongodb';
import { ApiError } from '../../keys/errors.ts';
import { backoff } from '../retry.ts';

/** DUPLICATE: a unique index said no. AWAY: the outcome is unknown. OTHER: the server refused the command. */
export type Failure = 'DUPLICATE' | 'AWAY' | 'OTHER';

const DUPLICATE_CODES = new Set([11000, 11001]);
// Primary changes, shutdowns, time-outs and write-concern failures: all say "perhaps, ask again".
const AWAY_CODES = new Set([
  6, 7, 50, 64, 79, 89, 91, 100, 112, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436,
]);

const ANSWER_MS = 6_000;
const MAX_ROLLBACKS = 8;

/** THE table from driver errors to what they mean here. */
export function failureOf(error: unknown): Failure {
  if (error instanceof MongoWriteConcernError) return 'AWAY';
  if (error instanceof MongoServerError) {
    // A batch that lost its connection is reported as a server's error without a code.
    if (error.code === undefined) return 'AWAY';
    const code = Number(error.code);
    if (DUPLICATE_CODES.has(code)) return 'DUPLICATE';
    // FerretDB reports a lost race on a unique index so; it means the same.
    if (code === 1 && /exclusion constraint|duplicate key/i.test(error.message)) return 'DUPLICATE';
    // An error of the server's own says nothing of the command: perhaps it took place.
    if (code === 1 || code === 8) return 'AWAY';
    if (AWAY_CODES.has(code) || error.hasErrorLabel('RetryableWriteError')) return 'AWAY';
    return 'OTHER';
  }
  if (error instanceof MongoNetworkError || error instanceof MongoServerSelectionError) return 'AWAY';
  return error instanceof MongoError || error instanceof NoResponseError ? 'AWAY' : 'OTHER';
}

/** What a driver error means for a call: no decision can be made. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (failureOf(error) === 'OTHER') return new ApiError('INTERNAL', 'internal error', { cause: error });
  return new ApiError('STORE_UNAVAILABLE', 'the store is not available', {
    retryAfterMs: 1000,
    cause: error,
  });
}

/** A driver call that has not ended in time: its outcome is unknown. */
class NoResponseError extends Error {}

/** To be spread into the options of a driver call. */
export type Limits = CommandOperationOptions & { readonly signal: AbortSignal };

/**
 * Runs a driver call, for so long at most. The driver's own limits miss a write on a socket that has just closed: it
 * waits for a `drain` that never comes, and keeps its place in the pool. Aborting the signal ends both.
 */
export async function inTime<T>(call: (limits: Limits) => Promise<T>, limitMs = ANSWER_MS): Promise<T> {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new NoResponseError(`no answer in ${limitMs} ms`);
      reject(error);
      controller.abort(error);
    }, limitMs);
  });
  try {
    return await Promise.race([unlessRolledBack(() => call({ signal: controller.signal })), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Two writes at once have held each other up, and the server has undone this one whole: it may be sent again. */
const isRolledBack = (error: unknown) =>
  error instanceof MongoServerError && error.code === 1 && /deadlock detected/i.test(error.message);

async function unlessRolledBack<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (attempt === MAX_ROLLBACKS || !isRolledBack(error)) throw error;
      await backoff(attempt, 5, 100);
    }
  }
}

/** The same; a failure becomes one of ours. */
export async function guarded<T>(call: (limits: Limits) => Promise<T>): Promise<T> {
  try {
    return await inTime(call);
  } catch (error) {
    throw toApiError(error);
  }
}

/** The log is away and the process is ending. */
export function unavailableAudit(cause: unknown): ApiError {
  return new ApiError('AUDIT_UNAVAILABLE', 'the audit log does not answer', { retryAfterMs: 1000, cause });
}

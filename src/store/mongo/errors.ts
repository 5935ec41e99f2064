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

/** DUPLICATE: a unique index refused the write. AWAY: the outcome is unknown. OTHER: the server refused the command. */
export type Failure = 'DUPLICATE' | 'AWAY' | 'OTHER';

const DUPLICATE_CODES = new Set([11000, 11001]);
// Primary changes, shutdowns, time-outs and write-concern failures: the outcome is unknown, a retry may succeed.
const AWAY_CODES = new Set([
  6, 7, 50, 64, 79, 89, 91, 100, 112, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436,
]);

const ANSWER_MS = 6_000;
const MAX_ROLLBACKS = 8;

/** The one place that classifies driver errors. */
export function failureOf(error: unknown): Failure {
  if (error instanceof MongoWriteConcernError) return 'AWAY';
  if (error instanceof MongoServerError) {
    // The driver reports a batch that lost its connection as a server error without a code.
    if (error.code === undefined) return 'AWAY';
    const code = Number(error.code);
    if (DUPLICATE_CODES.has(code)) return 'DUPLICATE';
    // FerretDB's error for a lost race on a unique index.
    if (code === 1 && /exclusion constraint|duplicate key/i.test(error.message)) return 'DUPLICATE';
    // Internal server errors: the command may have been applied.
    if (code === 1 || code === 8) return 'AWAY';
    if (AWAY_CODES.has(code) || error.hasErrorLabel('RetryableWriteError')) return 'AWAY';
    return 'OTHER';
  }
  if (error instanceof MongoNetworkError || error instanceof MongoServerSelectionError) return 'AWAY';
  return error instanceof MongoError || error instanceof NoResponseError ? 'AWAY' : 'OTHER';
}

/** The error of a call when the database fails: no decision can be made. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (failureOf(error) === 'OTHER') return new ApiError('INTERNAL', 'internal error', { cause: error });
  return new ApiError('STORE_UNAVAILABLE', 'the store is not available', {
    retryAfterMs: 1000,
    cause: error,
  });
}

/** A driver call did not end in time: its outcome is unknown. */
class NoResponseError extends Error {}

/** Must be spread into the options of a driver call. */
export type Limits = CommandOperationOptions & { readonly signal: AbortSignal };

/**
 * Runs a driver call with a time limit. The driver's own limits miss a write on a socket that has just closed: the
 * write waits for a `drain` that never comes, and keeps its pooled connection. Aborting the signal ends both.
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

/** A deadlock of two writes: the server has rolled this one back completely, so it can be sent again. */
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

/** The same; failures become ApiErrors. */
export async function guarded<T>(call: (limits: Limits) => Promise<T>): Promise<T> {
  try {
    return await inTime(call);
  } catch (error) {
    throw toApiError(error);
  }
}

/** The error for an event that could not be written before the process ended. */
export function unavailableAudit(cause: unknown): ApiError {
  return new ApiError('AUDIT_UNAVAILABLE', 'the audit log does not answer', { retryAfterMs: 1000, cause });
}

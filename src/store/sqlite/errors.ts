import { ApiError } from '../../keys/errors.ts';

/** What a failing embedded store means for a call: no decision can be made. */
export function unavailable(cause: unknown): ApiError {
  return new ApiError('STORE_UNAVAILABLE', 'the store is not available', { retryAfterMs: 1000, cause });
}

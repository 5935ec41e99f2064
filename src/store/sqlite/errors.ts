import { ApiError } from '../../keys/errors.ts';

/** The error of a call when the embedded store fails: no decision can be made. */
export function unavailable(cause: unknown): ApiError {
  return new ApiError('STORE_UNAVAILABLE', 'the store is not available', { retryAfterMs: 1000, cause });
}

import { ApiError } from '../keys/errors.ts';

/** A caller asked for a revision that the store has not reached. */
export function revisionNotReached(wanted: number, have: number): ApiError {
  return new ApiError(
    'REVISION_NOT_REACHED',
    `min_revision ${wanted} is ahead of the store, which is at ${have}`,
    {
      metadata: { revision: String(have) },
    },
  );
}

import { RateLimiterRes } from 'rate-limiter-flexible';
import type { FailureCounted } from '../keys/ports/limits.ts';
import type { LockedAddresses } from './locked-addresses.ts';
import type { LockoutSettings } from './store.ts';

/**
 * The library locks when a count goes above its points; here the fifth failure itself must lock, hence one less.
 * A window starts with the first failure; the lock lasts a window from the locking failure and is not extended.
 */
export function limiterOptions({ maxAttempts, windowSeconds }: LockoutSettings) {
  return {
    keyPrefix: 'lockout',
    points: maxAttempts - 1,
    duration: windowSeconds,
    blockDuration: windowSeconds,
  };
}

/** Counts a failure. */
export async function countFailure(
  limiter: { consume(key: string): Promise<RateLimiterRes> },
  locked: LockedAddresses,
  ip: string,
  { maxAttempts }: LockoutSettings,
): Promise<FailureCounted> {
  try {
    await limiter.consume(ip);
    return { lockedForMs: 0 };
  } catch (refused) {
    // The library rejects with its result when the count is above its points, with an Error when the store fails.
    if (!(refused instanceof RateLimiterRes)) throw refused;
    locked.lock(ip, refused.msBeforeNext);
    const waitMs = refused.msBeforeNext;
    return refused.consumedPoints > maxAttempts
      ? { lockedForMs: waitMs }
      : { lockedForMs: 0, locksForMs: waitMs };
  }
}

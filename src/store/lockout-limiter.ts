import { RateLimiterRes } from 'rate-limiter-flexible';
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

/** Counts a failure. Above 0 when the address was locked before this one: the milliseconds still to wait. */
export async function countFailure(
  limiter: { consume(key: string): Promise<RateLimiterRes> },
  locked: LockedAddresses,
  ip: string,
  { maxAttempts }: LockoutSettings,
): Promise<number> {
  try {
    await limiter.consume(ip);
    return 0;
  } catch (refused) {
    // The library rejects with its result when the count is above its points, with an Error when the store fails.
    if (!(refused instanceof RateLimiterRes)) throw refused;
    locked.lock(ip, refused.msBeforeNext);
    return refused.consumedPoints > maxAttempts ? refused.msBeforeNext : 0;
  }
}

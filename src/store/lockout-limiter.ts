import { RateLimiterRes } from 'rate-limiter-flexible';
import type { FailureCounted } from '../keys/ports/limits.ts';
import type { LockedAddresses } from './locked-addresses.ts';
import type { LockoutSettings } from './store.ts';

/**
 * The library locks when a count exceeds its points; here failure number `maxAttempts` itself locks, hence one less.
 * A window starts with the first failure; a lock lasts one window from the locking failure and is not extended.
 */
export function limiterOptions({ maxAttempts, windowSeconds }: LockoutSettings) {
  return {
    keyPrefix: 'lockout',
    points: maxAttempts - 1,
    duration: windowSeconds,
    blockDuration: windowSeconds,
  };
}

/** The part of the library's interface that is used here. */
export interface FailureLimiter {
  consume(key: string): Promise<RateLimiterRes>;
  set(key: string, points: number, secDuration: number): Promise<RateLimiterRes>;
}

export async function countFailure(
  limiter: FailureLimiter,
  locked: LockedAddresses,
  ip: string,
  { maxAttempts, windowSeconds }: LockoutSettings,
): Promise<FailureCounted> {
  // The library rejects with a result when the count exceeds its points, and with an Error when the store fails.
  const counted = await limiter.consume(ip).catch((refused: unknown) => {
    if (refused instanceof RateLimiterRes) return refused;
    throw refused;
  });
  const { consumedPoints, msBeforeNext } = counted;
  const forMs = Math.min(msBeforeNext, windowSeconds * 1000);
  // Only after the clock was set back: a window or a lock never ends later than its own length from now.
  if (msBeforeNext > forMs) await limiter.set(ip, consumedPoints, windowSeconds);
  if (consumedPoints < maxAttempts) return { lockedForMs: 0 };
  locked.lock(ip, forMs);
  return consumedPoints > maxAttempts ? { lockedForMs: forMs } : { lockedForMs: 0, locksForMs: forMs };
}

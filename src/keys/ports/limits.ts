import type { MaybePromise } from '../maybe-promise.ts';
import type { QuotaRequest, RateLimitState } from '../quota.ts';
import type { Page, Paged } from './page.ts';

export interface QuotaTaken {
  readonly admitted: boolean;
  readonly states: readonly RateLimitState[];
}

export interface QuotaLimiter {
  /** Takes from every limit or from none, exactly, across processes. */
  take(request: QuotaRequest): MaybePromise<QuotaTaken>;
  /** The result that take would give, without taking. */
  peek(request: QuotaRequest): MaybePromise<QuotaTaken>;
}

export interface LockedAddress {
  readonly clientIp: string;
  readonly expireTime: number;
}

export interface FailureCounted {
  /** Above 0: the address was locked already, so this failure was not counted; the lock lasts this much longer. */
  readonly lockedForMs: number;
  /** Set when this failure locked the address: for how long. */
  readonly locksForMs?: number;
}

export interface Lockout {
  /** How long the address is still locked out, 0 if it is not; undefined when the store must be asked. No I/O. */
  lockedForMs(ip: string): number | undefined;
  /** Like lockedForMs, but reads the store. */
  readLockedForMs(ip: string): Promise<number>;
  /** Counts a failure, unless the address is locked already. */
  fail(ip: string): Promise<FailureCounted>;
  /** In the order of addresses. */
  list(page: Page): Promise<Paged<LockedAddress>>;
  count(): Promise<number>;
  /** False when the address was not locked. */
  clear(ip: string): Promise<boolean>;
}

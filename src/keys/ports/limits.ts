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
  /** What take would answer, without taking. */
  peek(request: QuotaRequest): MaybePromise<QuotaTaken>;
}

export interface LockedAddress {
  readonly clientIp: string;
  readonly expireTime: number;
}

export interface FailureCounted {
  /** Above 0: it was locked already, so this one was not counted; come back after that long. */
  readonly lockedForMs: number;
  /** Set when this failure locked the address: for so long. */
  readonly locksForMs?: number;
}

export interface Lockout {
  /** How long the address is still locked out, 0 for not at all; undefined when this process must ask. No I/O. */
  lockedForMs(ip: string): number | undefined;
  /** The same, asked of the store. */
  readLockedForMs(ip: string): Promise<number>;
  /** Counts a failure, unless the address is locked already. */
  fail(ip: string): Promise<FailureCounted>;
  /** By address. */
  list(page: Page): Promise<Paged<LockedAddress>>;
  count(): Promise<number>;
  /** False when there was nothing to clear. */
  clear(ip: string): Promise<boolean>;
}

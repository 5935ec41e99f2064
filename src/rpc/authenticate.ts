import { firstDenial } from '../keys/check.ts';
import { ApiError } from '../keys/errors.ts';
import { networkOf } from '../keys/ip.ts';
import type { Key } from '../keys/key.ts';
import { slotOf } from '../keys/key.ts';
import { type MaybePromise, mapMaybe } from '../keys/maybe-promise.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Found, KeyStore, LastUses } from '../keys/ports/key-store.ts';
import type { Lockout, QuotaLimiter } from '../keys/ports/limits.ts';
import type { Observer } from '../keys/ports/observer.ts';
import { retryAfterMs } from '../keys/quota.ts';
import { matchingGrant } from '../keys/scope.ts';
import { hashSecret } from '../keys/secret.ts';
import type { IncomingCall } from './incoming-call.ts';
import { LookBudgets } from './look-budgets.ts';
import type { RequiredScope } from './method.ts';

const BEARER = /^Bearer +(\S+)$/i;

export interface AuthenticatorParts {
  readonly keys: KeyStore;
  readonly quota: QuotaLimiter;
  readonly lockout: Lockout;
  readonly lastUses: LastUses;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'oldCredential' | 'lockedOut'>;
  /** Which texts are looked up in the store at all. */
  readonly mayBeSecret: (text: string) => boolean;
}

/** Authenticates and authorises callers by an ordinary key with a scope that begins with `apikeys`. */
export class Authenticator {
  readonly #parts: AuthenticatorParts;
  readonly #budgets: LookBudgets;

  constructor(parts: AuthenticatorParts) {
    this.#parts = parts;
    this.#budgets = new LookBudgets(parts.clock);
  }

  /** The calling key. UNAUTHENTICATED when it is missing, or when a validation would deny it. */
  identify(call: IncomingCall): MaybePromise<Key> {
    if (call.authorization === undefined || call.authorization === '') {
      this.#failed(call);
      throw new ApiError('CREDENTIAL_MISSING', 'send a key as metadata: authorization: Bearer <key>');
    }
    const secret = BEARER.exec(call.authorization)?.[1];
    if (secret === undefined || !this.#parts.mayBeSecret(secret)) return this.#wrong(call);
    const secretHash = hashSecret(secret);
    const known = this.#parts.keys.peekCached(secretHash);
    if (known?.key !== undefined) return this.#judge(call, secretHash, known);
    return this.#lookUp(call, secretHash).then((found) => this.#judge(call, secretHash, found));
  }

  #judge(call: IncomingCall, secretHash: string, found: Found): MaybePromise<Key> {
    const { key } = found;
    const slot = slotOf(found, secretHash);
    if (key === undefined || slot === undefined) return this.#wrong(call);
    const now = this.#parts.clock.now();
    const denial = firstDenial(key, slot, { requiredScope: undefined, clientIp: call.peerIp, now });
    if (slot !== 'CURRENT') {
      const decision = denial ?? 'VALID';
      const { observer } = this.#parts;
      observer.oldCredential({ decision, key, slot, clientIp: call.peerIp, dryRun: false, time: now });
    }
    if (denial === undefined) {
      // Only after a read of the store: a key found in memory needs no budget.
      if (found.fromCache !== true) this.#budgets.good(networkOf(call.peerIp), secretHash);
      return key;
    }
    this.#failed(call);
    // The secret proves possession: it does not count for lockout, and its holder may learn the reason.
    throw new ApiError('CREDENTIAL_INVALID', `the calling key is ${denial}`, {
      keyId: key.id,
      metadata: { decision: denial },
    });
  }

  /** Checks again a caller that was admitted before, without counting another call. */
  async recheck(call: IncomingCall, anyOf: RequiredScope): Promise<void> {
    requireScope(await this.identify(call), anyOf);
  }

  /** PERMISSION_DENIED unless the key holds one of the scopes; then takes from the key's own limits. */
  authorize(key: Key, anyOf: RequiredScope): MaybePromise<void> {
    requireScope(key, anyOf);
    const used = () => this.#parts.lastUses.note(key.id, this.#parts.clock.now());
    if (key.rateLimits.length === 0) return used();
    const request = { bucket: key.rateLimitBucket, limits: key.rateLimits, cost: 1 };
    return mapMaybe(this.#parts.quota.take(request), ({ admitted, states }) => {
      if (admitted) return used();
      const wait = retryAfterMs(states);
      throw new ApiError('CALLER_RATE_LIMITED', 'the calling key is over its rate limit', {
        keyId: key.id,
        ...(wait === undefined ? {} : { retryAfterMs: wait }),
      });
    });
  }

  /** Admits an attempt with a secret that is its own proof; limited once the peer is locked out. */
  async admit(call: IncomingCall, secretHash: string): Promise<void> {
    if (!this.#budgets.wasGood(secretHash)) this.#refuseFlood(call);
    if ((await this.#lockedForMs(call)) === 0) return;
    const retryAfterMs = this.#budgets.lookWaitMs(networkOf(call.peerIp), secretHash);
    if (retryAfterMs === 0) return;
    const text = 'too many wrong credentials from this address';
    throw new ApiError('PEER_LOCKED_OUT', text, { retryAfterMs });
  }

  /** Counts a wrong secret for the calling address. */
  async countWrong(call: IncomingCall): Promise<void> {
    this.#failed(call);
    if ((await this.#lockedForMs(call)) > 0) return;
    const { locksForMs } = await this.#parts.lockout.fail(call.peerIp);
    if (locksForMs !== undefined) this.#parts.observer.lockedOut(call.peerIp, locksForMs);
  }

  async #lookUp(call: IncomingCall, secretHash: string): Promise<Found> {
    await this.admit(call, secretHash);
    return this.#parts.keys.findByHash(secretHash);
  }

  async #lockedForMs({ peerIp }: IncomingCall): Promise<number> {
    const { lockout } = this.#parts;
    return lockout.lockedForMs(peerIp) ?? lockout.readLockedForMs(peerIp);
  }

  /** Counts a failed credential of this address; refused beyond the budget of recorded failures. */
  #failed(call: IncomingCall): void {
    this.#refuseFlood(call);
    this.#budgets.failed(networkOf(call.peerIp));
  }

  /** Each refusal is an event of 300 bytes, so beyond a budget refusals are only counted. */
  #refuseFlood({ peerIp }: IncomingCall): void {
    const retryAfterMs = this.#budgets.failureWaitMs(networkOf(peerIp));
    if (retryAfterMs === 0) return;
    const text = 'too many wrong or missing credentials from this address';
    throw new ApiError('TOO_MANY_WRONG_CREDENTIALS', text, { retryAfterMs: Math.max(1_000, retryAfterMs) });
  }

  async #wrong(call: IncomingCall): Promise<never> {
    await this.countWrong(call);
    throw new ApiError('CREDENTIAL_INVALID', 'the calling key is not known here');
  }
}

function requireScope(key: Key, anyOf: RequiredScope): void {
  if (anyOf === 'ANY_SCOPE') return;
  if (anyOf.some((scope) => matchingGrant(key.scopes, scope) !== undefined)) return;
  const wanted = anyOf.join(' or ');
  throw new ApiError('SCOPE_MISSING', `the calling key lacks the scope ${wanted}`, {
    metadata: { required_scope: wanted },
  });
}

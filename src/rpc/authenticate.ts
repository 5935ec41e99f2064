import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { firstDenial } from '../keys/check.ts';
import { ApiError } from '../keys/errors.ts';
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
import type { Call } from './call.ts';
import type { RequiredScope } from './method.ts';

const BEARER = /^Bearer +(\S+)$/i;
const UNKNOWN_LOOKUPS_PER_MINUTE = 10;

export interface AuthenticatorParts {
  readonly keys: KeyStore;
  readonly quota: QuotaLimiter;
  readonly lockout: Lockout;
  readonly lastUses: LastUses;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'oldCredential' | 'lockedOut'>;
  /** Which texts are looked up at all. */
  readonly mayBeSecret: (text: string) => boolean;
}

/** Who calls, and may they: an ordinary key with a scope that begins with `apikeys`. */
export class Authenticator {
  readonly #parts: AuthenticatorParts;
  readonly #unknownLookups = new RateLimiterMemory({ points: UNKNOWN_LOOKUPS_PER_MINUTE, duration: 60 });

  constructor(parts: AuthenticatorParts) {
    this.#parts = parts;
  }

  /** The calling key. UNAUTHENTICATED when there is none, or when it would be denied. */
  identify(call: Call): MaybePromise<Key> {
    if (call.authorization === undefined || call.authorization === '') {
      throw new ApiError('CREDENTIAL_MISSING', 'send a key as metadata: authorization: Bearer <key>');
    }
    const secret = BEARER.exec(call.authorization)?.[1];
    if (secret === undefined || !this.#parts.mayBeSecret(secret)) return this.#wrong(call);
    const secretHash = hashSecret(secret);
    const known = this.#parts.keys.peekCached(secretHash);
    const found = known?.key === undefined ? this.#lookUp(call, secretHash) : known;
    return mapMaybe(found, (facts) => this.#judge(call, secretHash, facts));
  }

  #judge(call: Call, secretHash: string, found: Found): MaybePromise<Key> {
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
    if (denial === undefined) return key;
    // It proves possession, so it does not count for lockout and its holder may know why.
    throw new ApiError('CREDENTIAL_INVALID', `the calling key is ${denial}`, {
      keyId: key.id,
      metadata: { decision: denial },
    });
  }

  /** The same of a caller that was let in before, without counting another call. */
  async recheck(call: Call, anyOf: RequiredScope): Promise<void> {
    requireScope(await this.identify(call), anyOf);
  }

  /** PERMISSION_DENIED unless the key holds one of the scopes; then its own limits. */
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

  /** Admits a try with a secret that is its own proof: limited once the peer is locked out. */
  async admit(call: Call): Promise<void> {
    if ((await this.#lockedForMs(call)) === 0) return;
    try {
      await this.#unknownLookups.consume(call.peerIp);
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused;
      throw new ApiError('PEER_LOCKED_OUT', 'too many wrong credentials from this address', {
        retryAfterMs: refused.msBeforeNext,
      });
    }
  }

  /** Counts a wrong secret for the calling address. */
  async countWrong(call: Call): Promise<void> {
    if ((await this.#lockedForMs(call)) > 0) return;
    const { locksForMs } = await this.#parts.lockout.fail(call.peerIp);
    if (locksForMs !== undefined) this.#parts.observer.lockedOut(call.peerIp, locksForMs);
  }

  async #lookUp(call: Call, secretHash: string): Promise<Found> {
    await this.admit(call);
    return this.#parts.keys.findByHash(secretHash);
  }

  async #lockedForMs({ peerIp }: Call): Promise<number> {
    const { lockout } = this.#parts;
    return lockout.lockedForMs(peerIp) ?? lockout.readLockedForMs(peerIp);
  }

  async #wrong(call: Call): Promise<never> {
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

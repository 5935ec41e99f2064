import { isIP } from 'node:net';
import { IpAllowlist } from './ip.ts';
import type { Key } from './key.ts';
import type { KeyChange } from './ports/key-store.ts';
import type { RotationEffects } from './rotation.ts';
import { matchingGrant } from './scope.ts';

/** What of a key decides whether a call is let through: what a restored backup must not widen again. */
export type Standing = Pick<
  Key,
  | 'secrets'
  | 'hint'
  | 'rotation'
  | 'scopes'
  | 'rateLimits'
  | 'rateLimitBucket'
  | 'disabled'
  | 'expireTime'
  | 'expired'
  | 'revokeTime'
  | 'revokeReason'
  | 'revokeNote'
> & { readonly cidrs: readonly string[] };

/** The hash of a secret that no longer works, and when it stopped; milliseconds since 1970. */
export interface RetiredHash {
  readonly hash: string;
  readonly time: number;
}

/** The parts of a standing, in the order in which they are put right. */
export type Facet = 'REVOKED' | 'ROTATED' | 'DISABLED' | 'SCOPES' | 'ALLOWLIST' | 'LIMITS' | 'EXPIRED';

/** One part of a key put right. */
export interface Correction {
  readonly facet: Facet;
  readonly change: KeyChange;
  readonly key: Key;
  readonly effects: RotationEffects;
}

export function standingOf(key: Key): Standing {
  const { secrets, hint, rotation, scopes, rateLimits, rateLimitBucket, ipAllowlist } = key;
  const { disabled, expireTime, expired, revokeTime, revokeReason, revokeNote } = key;
  const ends = { disabled, expireTime, expired, revokeTime, revokeReason, revokeNote };
  return { secrets, hint, rotation, scopes, rateLimits, rateLimitBucket, cidrs: ipAllowlist.cidrs, ...ends };
}

/** Whether a change is about what decides. Also one that widens: it takes the place of the narrower one before it. */
export function changesStanding(before: Key, after: Key): boolean {
  return JSON.stringify(standingOf(before)) !== JSON.stringify(standingOf(after));
}

/**
 * The first part in which `key`, an earlier version, lets through what the later standing does not, put as it was
 * later; undefined when there is none. What was widened since stays as narrow as it is.
 */
export function correctionOf(
  key: Key,
  later: Standing,
  retired: readonly RetiredHash[],
): Correction | undefined {
  const updated = (facet: Facet, change: KeyChange, fields: Partial<Key>): Correction => ({
    facet,
    change,
    key: { ...key, ...fields },
    effects: { retired: [], narrows: false },
  });
  if (later.revokeTime !== undefined && key.revokeTime === undefined) {
    const { revokeTime, revokeReason, revokeNote } = later;
    return updated('REVOKED', 'REVOKED', { revokeTime, revokeReason, revokeNote });
  }
  if (!sameSecrets(key, later)) return withSecrets(key, later, retired);
  if (later.disabled && !key.disabled) return updated('DISABLED', 'UPDATED', { disabled: true });
  if (key.scopes.some((scope) => matchingGrant(later.scopes, scope) === undefined))
    return updated('SCOPES', 'UPDATED', { scopes: later.scopes });
  if (admitsMore(key.ipAllowlist.cidrs, later.cidrs))
    return updated('ALLOWLIST', 'UPDATED', { ipAllowlist: new IpAllowlist(later.cidrs) });
  if (limitsLess(key.rateLimits, later.rateLimits)) {
    const { rateLimits, rateLimitBucket } = later;
    return updated('LIMITS', 'UPDATED', { rateLimits, rateLimitBucket });
  }
  const endsOf = ({ expireTime = Number.POSITIVE_INFINITY }: Pick<Key, 'expireTime'>) => expireTime;
  if ((later.expired && !key.expired) || endsOf(later) < endsOf(key)) {
    const expireTime = endsOf(later) < endsOf(key) ? later.expireTime : key.expireTime;
    return updated('EXPIRED', 'EXPIRED', { expired: later.expired || key.expired, expireTime });
  }
  return undefined;
}

function sameSecrets(key: Key, { secrets, rotation }: Standing): boolean {
  const hashes = (of: Key['secrets']) => of.map(({ hash }) => hash).join();
  return hashes(key.secrets) === hashes(secrets) && key.rotation?.expireTime === rotation?.expireTime;
}

/** Secrets as they were later; what the key had besides, and what was retired since, is answered ROTATED. */
function withSecrets(key: Key, later: Standing, retired: readonly RetiredHash[]): Correction {
  const { secrets, hint, rotation } = later;
  const working = new Set(secrets.map(({ hash }) => hash));
  const gone = [...key.secrets, ...retired].map(({ hash }) => hash).filter((hash) => !working.has(hash));
  const same = key.rotation?.id === rotation?.id;
  const { startTime = 0 } = rotation ?? {};
  return {
    facet: 'ROTATED',
    change: 'ROTATED',
    key: { ...key, secrets, hint, rotation },
    effects: {
      retired: [...new Set(gone)],
      narrows: false,
      ...(rotation === undefined || same
        ? {}
        : { begun: { ...rotation, keyId: key.id, completeTime: undefined } }),
      ...(key.rotation === undefined || same
        ? {}
        : { completed: { id: key.rotation.id, time: Math.max(startTime, key.rotation.startTime) } }),
    },
  };
}

/** Whether a list lets an address through that the later one does not. An empty list is any address. */
function admitsMore(cidrs: readonly string[], later: readonly string[]): boolean {
  if (later.length === 0) return false;
  return cidrs.length === 0 || cidrs.some((cidr) => !later.some((outer) => contains(outer, cidr)));
}

function contains(outer: string, inner: string): boolean {
  const [address = '', length] = inner.split('/');
  const [first = '', outerLength] = outer.split('/');
  if (isIP(first) !== isIP(address) || Number(outerLength) > Number(length)) return false;
  return new IpAllowlist([outer]).allows(address);
}

/** Whether one of the later limits is missing, or higher. No limits is any number of calls. */
function limitsLess(limits: Key['rateLimits'], later: Key['rateLimits']): boolean {
  return later.some(
    ({ name, limit, windowMs }) =>
      !limits.some((own) => own.name === name && own.windowMs === windowMs && own.limit <= limit),
  );
}

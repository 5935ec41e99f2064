import { isIP } from 'node:net';
import { IpAllowlist } from './ip.ts';
import type { Key } from './key.ts';
import type { KeyChange } from './ports/key-store.ts';
import type { RotationEffects } from './rotation.ts';
import { matchingGrant } from './scope.ts';

/** The fields of a key that decide whether a call is allowed: a restored backup must not widen them again. */
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
> & {
  readonly cidrs: readonly string[];
  /** Unknown in records of releases without it. */
  readonly localValidation?: boolean;
};

/** The hash of a secret that no longer works, and when it stopped; milliseconds since 1970. */
export interface RetiredHash {
  readonly hash: string;
  readonly time: number;
}

/** The parts of a standing, in the order in which they are corrected. */
export type Facet =
  | 'REVOKED'
  | 'ROTATED'
  | 'DISABLED'
  | 'SCOPES'
  | 'ALLOWLIST'
  | 'LOCAL_VALIDATION'
  | 'LIMITS'
  | 'EXPIRED';

/** One corrected part of a key. */
export interface Correction {
  readonly facet: Facet;
  readonly change: KeyChange;
  readonly key: Key;
  readonly effects: RotationEffects;
}

export function standingOf(key: Key): Standing {
  const { secrets, hint, rotation, scopes, rateLimits, rateLimitBucket, ipAllowlist } = key;
  const { disabled, expireTime, expired, revokeTime, revokeReason, revokeNote, localValidation } = key;
  const ends = { disabled, expireTime, expired, revokeTime, revokeReason, revokeNote };
  return {
    secrets,
    hint,
    rotation,
    scopes,
    rateLimits,
    rateLimitBucket,
    cidrs: ipAllowlist.cidrs,
    ...ends,
    localValidation,
  };
}

/** Whether a change touches the standing. One that widens counts, too: it replaces the narrower record before it. */
export function changesStanding(before: Key, after: Key): boolean {
  return JSON.stringify(standingOf(before)) !== JSON.stringify(standingOf(after));
}

/**
 * The first part in which `key`, an earlier version, allows more than the later standing, with the later value in
 * place; undefined when there is none. A part that was widened since stays as narrow as it is in `key`.
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
  if (key.localValidation && later.localValidation === false)
    return updated('LOCAL_VALIDATION', 'UPDATED', { localValidation: false });
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

/** The later secrets; any other secret of the key, and those retired since, are answered ROTATED. */
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

/** Whether a list admits an address that the later list does not. An empty list admits any address. */
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

/** Whether one of the later limits is missing or higher here. No limits means any number of calls. */
function limitsLess(limits: Key['rateLimits'], later: Key['rateLimits']): boolean {
  return later.some(
    ({ name, limit, windowMs }) =>
      !limits.some((own) => own.name === name && own.windowMs === windowMs && own.limit <= limit),
  );
}

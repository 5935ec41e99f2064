import type { IpAllowlist } from './ip.ts';
import { sameHash } from './secret.ts';

export const KEY_TYPES = ['SYSTEM', 'USER', 'SERVICE', 'INTEGRATION', 'EMERGENCY'] as const;
export type KeyType = (typeof KEY_TYPES)[number];

export const KEY_STATUSES = ['ACTIVE', 'DISABLED', 'EXPIRED', 'REVOKED'] as const;
export type KeyStatus = (typeof KEY_STATUSES)[number];

export const REVOKE_REASONS = [
  'KEY_COMPROMISE',
  'SUPERSEDED',
  'AFFILIATION_CHANGED',
  'CESSATION_OF_OPERATION',
  'PRIVILEGE_WITHDRAWN',
] as const;
export type RevokeReason = (typeof REVOKE_REASONS)[number];

export type SecretSlot = 'CURRENT' | 'PREVIOUS';
/** RETIRED: the secret no longer works, but is known to have been the key's. */
export type FoundSlot = SecretSlot | 'RETIRED';

export const ROTATION_MODES = ['MANUAL', 'FORCED'] as const;
export type RotationMode = (typeof ROTATION_MODES)[number];

/** The rotation that a key is in; the key's second secret is the previous one. */
export interface KeyRotation {
  readonly id: string;
  readonly mode: RotationMode;
  readonly startTime: number;
  /** When the previous secret stops working. */
  readonly expireTime: number;
}

/** One fixed-window limit: `limit` of cost in `windowMs` from the first call counted. */
export interface RateLimit {
  readonly name: string;
  readonly limit: number;
  readonly windowMs: number;
}

/** A stored secret: its SHA-256 and its creation time. */
export interface KeySecret {
  readonly hash: string;
  readonly createTime: number;
}

/** An API key. Times are milliseconds since 1970. */
export interface Key {
  readonly id: string;
  readonly name: string;
  readonly ownerId: string;
  readonly type: KeyType;
  /** The current secret and, in a rotation, the previous one after it. */
  readonly secrets: readonly KeySecret[];
  readonly hint: string;
  readonly scopes: readonly string[];
  readonly rateLimits: readonly RateLimit[];
  /** The id under which the key's counters are kept: its own id unless shared. */
  readonly rateLimitBucket: string;
  readonly ipAllowlist: IpAllowlist;
  readonly metadata: Readonly<Record<string, string>>;
  readonly disabled: boolean;
  readonly createTime: number;
  readonly expireTime: number | undefined;
  /** Expiry as a state, so that ExpireKey(now) takes effect whatever a clock says. */
  readonly expired: boolean;
  readonly rotation: KeyRotation | undefined;
  /** How often the key's secret should be replaced. */
  readonly rotateEveryMs: number | undefined;
  /** Guards that hold a lease may decide about the key by themselves. */
  readonly localValidation: boolean;
  /** It had local validation once: changes that narrow it wait for guards for ever after. */
  readonly everLocal: boolean;
  readonly revokeTime: number | undefined;
  readonly revokeReason: RevokeReason | undefined;
  readonly revokeNote: string;
  readonly lastUseTime: number | undefined;
  /** The request_id it was created with, for 24 hours. */
  readonly requestId: string | undefined;
  readonly etag: string;
  readonly revision: number;
}

/** The status that admins see; the worst state wins. */
export function statusOf(key: Key, now: number): KeyStatus {
  if (key.revokeTime !== undefined) return 'REVOKED';
  if (key.disabled) return 'DISABLED';
  return isExpired(key, now) ? 'EXPIRED' : 'ACTIVE';
}

/** At exactly expire_time a key counts as expired. */
export function isExpired(key: Key, now: number): boolean {
  return key.expired || (key.expireTime !== undefined && now >= key.expireTime);
}

/** Which of the key's secrets has this hash, compared in constant time; undefined when none has. */
export function slotOf(
  { key, retired }: { readonly key: Key | undefined; readonly retired?: true },
  secretHash: string,
): FoundSlot | undefined {
  if (key === undefined) return undefined;
  const current = sameHash(secretHash, key.secrets[0]?.hash);
  const previous = key.secrets.length > 1 && sameHash(secretHash, key.secrets[1]?.hash);
  if (current) return 'CURRENT';
  if (previous) return 'PREVIOUS';
  return retired === true ? 'RETIRED' : undefined;
}

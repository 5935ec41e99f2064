import { ApiError } from './errors.ts';
import type { Key, KeyType, RotationMode } from './key.ts';
import { isExpired } from './key.ts';

/** How many secrets of one key may work at once: the current and, in a rotation, the previous one. */
export const MAX_ACTIVE_SECRETS = 2;
/** How long the hash of a retired secret is kept, so that a late user of it is answered ROTATED and not NOT_FOUND. */
export const RETIRED_MS = 90 * 86_400_000;
/** How long after its grace a planned rotation is reported, or completed (ROTATION_AUTO_CLEANUP). */
export const CLEANUP_MS = 604_800_000;

const HOUR_MS = 3_600_000;
const DEFAULT_GRACE_MS: Readonly<Record<KeyType, number>> = {
  SYSTEM: 72 * HOUR_MS,
  USER: 24 * HOUR_MS,
  SERVICE: 48 * HOUR_MS,
  INTEGRATION: 24 * HOUR_MS,
  EMERGENCY: 0,
};
const DEFAULT_FORCED_GRACE_MS = HOUR_MS;

export type RotationState = 'NONE' | 'ACTIVE' | 'EXPIRED';

/** Both bounds are inclusive. */
export interface GraceBounds {
  readonly minMs: number;
  readonly maxMs: number;
}

/** The effects of a change of secrets beyond the key itself. */
export interface RotationEffects {
  /** A rotation that began. */
  readonly begun?: RotationStart;
  /** A rotation that was completed, and when. */
  readonly completed?: { readonly id: string; readonly time: number };
  /** Hashes of secrets that no longer work. */
  readonly retired: readonly string[];
  /** Whether a secret that worked until now no longer does. */
  readonly narrows: boolean;
}

export interface RotationStart {
  readonly id: string;
  readonly keyId: string;
  readonly mode: RotationMode;
  readonly startTime: number;
  readonly expireTime: number;
  /** Set when the rotation is over as it begins: a grace of 0. */
  readonly completeTime: number | undefined;
}

export interface Rotated {
  readonly key: Key;
  readonly effects: RotationEffects;
}

/** At exactly expire_time the grace is over. */
export function rotationStateOf(key: Key, now: number): RotationState {
  if (key.rotation === undefined) return 'NONE';
  return now < key.rotation.expireTime ? 'ACTIVE' : 'EXPIRED';
}

/** When the next rotation is due; undefined without a schedule. */
export function rotationDueTime(key: Key): number | undefined {
  const born = key.secrets[0]?.createTime;
  return key.rotateEveryMs === undefined || born === undefined ? undefined : born + key.rotateEveryMs;
}

/** The grace to use: the one asked for, within its bounds, or the default. @throws GRACE_OUT_OF_BOUNDS */
export function graceOf(
  type: KeyType,
  mode: RotationMode,
  askedMs: number | undefined,
  { minMs, maxMs }: GraceBounds,
): number {
  const mayBeZero = type === 'EMERGENCY' || mode === 'FORCED';
  if (askedMs === undefined) {
    const usual =
      mode === 'FORCED' && type !== 'EMERGENCY' ? DEFAULT_FORCED_GRACE_MS : DEFAULT_GRACE_MS[type];
    return usual === 0 ? 0 : Math.min(Math.max(usual, minMs), maxMs);
  }
  if (askedMs === 0 && mayBeZero) return 0;
  if (askedMs >= minMs && askedMs <= maxMs) return askedMs;
  const zero = mayBeZero ? '0, or ' : '';
  const description = `${zero}${minMs / 1000} s to ${maxMs / 1000} s`;
  throw new ApiError('GRACE_OUT_OF_BOUNDS', `grace: ${description}`, {
    violations: [{ field: 'grace', description }],
    metadata: {
      min_seconds: String(minMs / 1000),
      max_seconds: String(maxMs / 1000),
      zero_allowed: String(mayBeZero),
    },
  });
}

/** A secret to install. */
export interface NewSecret {
  readonly hash: string;
  readonly hint: string;
  readonly rotationId: string;
}

/**
 * Installs a new secret. The current one becomes the previous one for the grace; any older one is retired. With a
 * grace of 0, no previous secret stays: a state that takes effect at once, by no clock.
 * @throws KEY_REVOKED, KEY_EXPIRED, ROTATION_IN_PROGRESS
 */
export function rotate(
  key: Key,
  mode: RotationMode,
  graceMs: number,
  secret: NewSecret,
  now: number,
): Rotated {
  if (key.revokeTime !== undefined) {
    throw new ApiError('KEY_REVOKED', 'a revoked key cannot be rotated', { keyId: key.id });
  }
  if (isExpired(key, now)) {
    throw new ApiError('KEY_EXPIRED', 'an expired key cannot be rotated', { keyId: key.id });
  }
  if (mode === 'MANUAL' && rotationStateOf(key, now) === 'ACTIVE') {
    throw new ApiError('ROTATION_IN_PROGRESS', 'the key is being rotated: complete that, or use FORCED', {
      keyId: key.id,
    });
  }
  const [current, ...older] = key.secrets;
  const minted = { hash: secret.hash, createTime: now };
  const expireTime = now + graceMs;
  const stays = graceMs > 0 && current !== undefined ? [current] : [];
  const retired = [...(stays.length === 0 && current !== undefined ? [current] : []), ...older];
  const { rotationId: id } = secret;
  const begun = { id, keyId: key.id, mode, startTime: now, expireTime };
  return {
    key: {
      ...key,
      secrets: [minted, ...stays],
      hint: secret.hint,
      rotation: stays.length === 0 ? undefined : { id, mode, startTime: now, expireTime },
    },
    effects: {
      begun: { ...begun, completeTime: stays.length === 0 ? now : undefined },
      ...(key.rotation === undefined ? {} : { completed: { id: key.rotation.id, time: now } }),
      retired: retired.map(({ hash }) => hash),
      narrows: stays.length === 0 || rotationStateOf(key, now) === 'ACTIVE',
    },
  };
}

/** Keeps only the new secret. Before the grace is over this ends the old secret at once. @throws NO_ROTATION */
export function completeRotation(key: Key, now: number): Rotated {
  const { rotation } = key;
  if (rotation === undefined) {
    throw new ApiError('NO_ROTATION', 'the key is in no rotation', { keyId: key.id });
  }
  const [current, ...older] = key.secrets;
  return {
    key: { ...key, secrets: current === undefined ? [] : [current], rotation: undefined },
    effects: {
      completed: { id: rotation.id, time: now },
      retired: older.map(({ hash }) => hash),
      narrows: now < rotation.expireTime,
    },
  };
}

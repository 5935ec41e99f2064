import { hash, randomBytes, timingSafeEqual } from 'node:crypto';

/** Every minted secret starts with this prefix. */
export const SECRET_PREFIX = 'audit_v1_';
/** A longer string is MALFORMED without a look-up. */
export const MAX_SECRET_CHARACTERS = 1024;

// The last of the 22 characters carries only two bits; any character is accepted there, canonical or not.
const SECRET_PATTERN = /^audit_v1_[A-Za-z0-9_-]{22}$/;
/** One byte per character. */
const ASCII = /^[\x20-\x7e]*$/;
const DUMMY_DIGEST = Buffer.alloc(64);

/** A new secret: the prefix and 128 random bits in base64url, 31 characters. */
export function mintSecret(): string {
  return SECRET_PREFIX + randomBytes(16).toString('base64url');
}

/** A new public id: `uid-apikey-` and 64 random bits in hex. */
export function mintKeyId(): string {
  return `uid-apikey-${randomBytes(8).toString('hex')}`;
}

export function mintRotationId(): string {
  return `rotation-${randomBytes(8).toString('hex')}`;
}

export function mintEtag(): string {
  return randomBytes(8).toString('hex');
}

/** True for the exact shape of a secret; the text is not trimmed. */
export function isSecret(text: string): boolean {
  return text.length === 31 && SECRET_PATTERN.test(text);
}

/** The test for texts to look up: the exact shape or, where imported keys are accepted, any text of bounded length. */
export function secretTest(acceptImportedShapes: boolean): (text: string) => boolean {
  if (!acceptImportedShapes) return isSecret;
  return (text) => text.length > 0 && text.length <= MAX_SECRET_CHARACTERS;
}

/** The hint of an imported key, whose secret was never known here. */
export function hintOfHash(secretHash: string): string {
  return `sha256:${fingerprint(secretHash)}…`;
}

/** SHA-256 of the whole secret, 64 lower-case hex: the only form in which a secret is stored. */
export function hashSecret(secret: string): string {
  return hash('sha256', secret, 'hex');
}

/** The form of every hash: 64 lower-case hex. */
export function isHash(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** The first 8 hex digits of a hash: enough to recognise that two unknown keys are the same. */
export function fingerprint(secretHash: string): string {
  return secretHash.slice(0, 8);
}

/** The hint by which admins recognise a key: the prefix and the last four characters. */
export function hintOf(secret: string): string {
  return `${SECRET_PREFIX}…${secret.slice(-4)}`;
}

/**
 * Compares a computed hash with a stored one in constant time.
 * A corrupt or missing stored hash is compared with a dummy and never equal.
 */
export function sameHash(computed: string, stored: string | undefined): boolean {
  const comparable = stored !== undefined && stored.length === computed.length && ASCII.test(stored);
  const digest = comparable ? Buffer.from(stored, 'latin1') : DUMMY_DIGEST;
  return timingSafeEqual(Buffer.from(computed, 'latin1'), digest) && comparable;
}

import { fingerprint, hashSecret, SECRET_PREFIX } from './secret.ts';

/** Control characters and unpaired surrogates: stores, terminals and C programs change them. */
const UNFIT = /[\p{Cc}\p{Cs}]/u;
const EACH_UNFIT = /[\p{Cc}\p{Cs}]/gu;
const SECRETS = /audit_v1_[A-Za-z0-9_-]{22}/g;
/** Texts that need a second check: not printable ASCII, or with a secret. One pass, since every call runs this. */
const UNUSUAL = /[^\x20-\x7e]|audit_v1_/;

/** The error text for any text with a character of the wrong kind. */
export const UNFIT_TEXT = 'no control characters, and no halves of surrogate pairs';

/** True for a text that every store and client returns unchanged. */
export function isFit(text: string): boolean {
  return !UNUSUAL.test(text) || !UNFIT.test(text);
}

/** Replaces every secret in a text with its fingerprint: people type secrets into the wrong fields. */
export function withoutSecrets(text: string): string {
  if (!text.includes(SECRET_PREFIX)) return text;
  return text.replace(SECRETS, (secret) => `sha256:${fingerprint(hashSecret(secret))}`);
}

/** A text from outside as the audit records it: whole characters, with U+FFFD for those that no text may contain. */
export function forAudit(text: string, maxCharacters: number): string {
  const cut = text.length > maxCharacters ? text.slice(0, maxCharacters) : text;
  return UNUSUAL.test(cut) ? withoutSecrets(cut.replace(EACH_UNFIT, '\ufffd')) : cut;
}

import { fingerprint, hashSecret, SECRET_PREFIX } from './secret.ts';

/** Control characters, and halves of surrogate pairs that stand alone: stores, terminals and C programs change them. */
const UNFIT = /[\p{Cc}\p{Cs}]/u;
const EACH_UNFIT = /[\p{Cc}\p{Cs}]/gu;
const SECRETS = /audit_v1_[A-Za-z0-9_-]{22}/g;
/** What may need a second look: all that is not printable ASCII, and secrets. One pass, on the path of every call. */
const UNUSUAL = /[^\x20-\x7e]|audit_v1_/;

/** What every text is told that holds a character of the wrong kind. */
export const UNFIT_TEXT = 'no control characters, and no halves of surrogate pairs';

/** True for a text that every store and every client gives back as it is. */
export function isFit(text: string): boolean {
  return !UNUSUAL.test(text) || !UNFIT.test(text);
}

/** Every secret in a text as its fingerprint: somebody typed one where another thing belongs. */
export function withoutSecrets(text: string): string {
  if (!text.includes(SECRET_PREFIX)) return text;
  return text.replace(SECRETS, (secret) => `sha256:${fingerprint(hashSecret(secret))}`);
}

/** A text that somebody else chose, as the audit keeps it: whole characters, U+FFFD for what no text may hold. */
export function forAudit(text: string, maxCharacters: number): string {
  const cut = text.length > maxCharacters ? text.slice(0, maxCharacters) : text;
  return UNUSUAL.test(cut) ? withoutSecrets(cut.replace(EACH_UNFIT, '\ufffd')) : cut;
}

import type { Violations } from './errors.ts';
import { normalizeCidr, normalizeIp } from './ip.ts';
import type { RateLimit } from './key.ts';
import { isGrant, isRequirableScope } from './scope.ts';
import { forAudit, isFit, UNFIT_TEXT } from './text.ts';

/** Bounds of the fields of requests (docs/design/rules.md 10); strings in characters. */
export const BOUNDS = {
  textCharacters: 1024,
  metadataValueCharacters: 4096,
  metadataEntries: 64,
  userAgentCharacters: 512,
  scopes: 64,
  rateLimits: 16,
  cidrs: 64,
  limitNameCharacters: 64,
  maxLimit: 1_000_000_000,
  maxCost: 1_000_000_000,
  minWindowMs: 1000,
  maxWindowMs: 366 * 86_400_000,
  batchItems: 100,
  importedKeys: 1000,
  minRotateEveryMs: 3_600_000,
  maxRotateEveryMs: 3_650 * 86_400_000,
  maxPageSize: 1000,
  defaultPageSize: 50,
} as const;

const KEY_ID = /^uid-apikey-[0-9a-f]{16}$/;
const LIMIT_NAME = /^[A-Za-z0-9_.-]{1,64}$/;

/** A text of up to 1 024 characters, none of them a control character. */
export function optionalText(found: Violations, field: string, value: string): string {
  if (value.length > BOUNDS.textCharacters) {
    found.add(field, `at most ${BOUNDS.textCharacters} characters, got ${value.length}`);
  } else if (!isFit(value)) found.add(field, UNFIT_TEXT);
  return value;
}

/** Like optionalText, but not empty. */
export function requiredText(found: Violations, field: string, value: string): string {
  if (value === '') found.add(field, 'required');
  return optionalText(found, field, value);
}

export function keyId(found: Violations, field: string, value: string): string {
  if (!KEY_ID.test(value)) found.add(field, 'must be uid-apikey- and 16 lower-case hex digits');
  return value;
}

/** At least one grant; repetitions are dropped. */
export function grants(found: Violations, field: string, values: readonly string[]): readonly string[] {
  const distinct = [...new Set(values)];
  if (distinct.length === 0) found.add(field, 'at least one scope is required');
  if (distinct.length > BOUNDS.scopes) found.add(field, `at most ${BOUNDS.scopes} scopes`);
  for (const [i, scope] of values.entries()) {
    if (scope.length > BOUNDS.textCharacters || !isGrant(scope)) {
      found.add(
        `${field}[${i}]`,
        "segments of A-Z a-z 0-9 _ . - joined by ':'; only a whole segment may be *",
      );
    }
  }
  return distinct;
}

/** A scope that a call requires: present, not empty, no `*`. */
export function requiredScope(found: Violations, field: string, value: string | undefined) {
  if (value === undefined) return undefined;
  optionalText(found, field, value);
  if (value === '') found.add(field, 'leave it out to ask for authentication only; empty is not a scope');
  else if (!isRequirableScope(value)) found.add(field, "segments of A-Z a-z 0-9 _ . - joined by ':', no *");
  return value;
}

export function rateLimits(
  found: Violations,
  field: string,
  limits: readonly RateLimit[],
): readonly RateLimit[] {
  if (limits.length > BOUNDS.rateLimits) found.add(field, `at most ${BOUNDS.rateLimits} limits`);
  const names = new Set<string>();
  for (const [i, { name, limit, windowMs }] of limits.entries()) {
    const at = `${field}[${i}]`;
    if (!LIMIT_NAME.test(name)) found.add(`${at}.name`, '1 to 64 of A-Z a-z 0-9 _ . -');
    if (names.has(name)) found.add(`${at}.name`, 'two limits of one key have this name');
    names.add(name);
    if (!(limit >= 1 && limit <= BOUNDS.maxLimit)) found.add(`${at}.limit`, `1 to ${BOUNDS.maxLimit}`);
    if (!(windowMs >= BOUNDS.minWindowMs && windowMs <= BOUNDS.maxWindowMs) || !Number.isInteger(windowMs)) {
      found.add(`${at}.window`, '1 s to 366 days, in whole milliseconds');
    }
  }
  return limits;
}

/** CIDRs or addresses, in canonical form. */
export function ipAllowlist(found: Violations, field: string, values: readonly string[]): readonly string[] {
  if (values.length > BOUNDS.cidrs) found.add(field, `at most ${BOUNDS.cidrs} entries`);
  return values.map((value, i) => {
    const cidr = value.length > BOUNDS.textCharacters ? undefined : normalizeCidr(value);
    if (cidr === undefined) found.add(`${field}[${i}]`, 'not an IPv4 or IPv6 address or CIDR');
    return cidr ?? '';
  });
}

/** An address, normalised; '' is undefined. */
export function clientIp(found: Violations, field: string, value: string): string | undefined {
  if (value === '') return undefined;
  const ip = normalizeIp(value);
  if (ip === undefined) found.add(field, 'not an IPv4 or IPv6 address');
  return ip;
}

export function metadata(found: Violations, field: string, entries: Readonly<Record<string, string>>) {
  const pairs = Object.entries(entries);
  if (pairs.length > BOUNDS.metadataEntries) found.add(field, `at most ${BOUNDS.metadataEntries} entries`);
  for (const [name, value] of pairs) {
    if (name === '' || name.length > BOUNDS.textCharacters) {
      found.add(field, `a key of 1 to ${BOUNDS.textCharacters} characters`);
    } else if (!isFit(name)) found.add(field, `in its keys ${UNFIT_TEXT}`);
    const at = `${field}[${forAudit(name, 64)}]`;
    if (value.length > BOUNDS.metadataValueCharacters) {
      found.add(at, `at most ${BOUNDS.metadataValueCharacters} characters`);
    } else if (!isFit(value)) found.add(at, UNFIT_TEXT);
  }
  return { ...entries };
}

/** 0 means never: undefined. */
export function rotateEvery(found: Violations, field: string, ms: number): number | undefined {
  if (ms === 0) return undefined;
  if (!(ms >= BOUNDS.minRotateEveryMs && ms <= BOUNDS.maxRotateEveryMs))
    found.add(field, '1 h to 10 years, or 0');
  return ms;
}

/** Only a server can count exactly, so guards decide about keys without limits only. */
export function localValidation(found: Violations, field: string, value: boolean, limits: number): boolean {
  if (value && limits > 0) found.add(field, 'only for keys without rate_limits');
  return value;
}

/** 0 means the default, 50. */
export function pageSize(found: Violations, field: string, value: number): number {
  if (value < 0 || value > BOUNDS.maxPageSize) found.add(field, `1 to ${BOUNDS.maxPageSize}, or 0 for 50`);
  return value === 0 ? BOUNDS.defaultPageSize : value;
}

/** 0 means 1. */
export function cost(found: Violations, field: string, value: bigint): number {
  if (value > BigInt(BOUNDS.maxCost)) found.add(field, `at most ${BOUNDS.maxCost}`);
  return value === 0n ? 1 : Number(value);
}

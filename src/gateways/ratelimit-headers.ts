import type { RateLimitState } from '../keys/quota.ts';

export type Header = readonly [name: string, value: string];

/** The largest integer of a structured field (RFC 9651). */
const MAX_INTEGER = 999_999_999_999_999;

const seconds = (ms: number) => Math.min(MAX_INTEGER, Math.max(0, Math.ceil(ms / 1000)));

/**
 * The key's limits in the format of draft-ietf-httpapi-ratelimit-headers. A limit's name needs no escaping: it consists
 * of letters, digits, `_`, `.` and `-`.
 */
export function rateLimitHeaders(states: readonly RateLimitState[], now: number): Header[] {
  if (states.length === 0) return [];
  let policies = '';
  let limits = '';
  for (const { name, limit, windowMs, remaining, resetTime } of states) {
    const comma = policies === '' ? '' : ', ';
    const reset = resetTime === undefined ? windowMs : resetTime - now;
    policies += `${comma}"${name}";q=${limit};w=${seconds(windowMs)}`;
    limits += `${comma}"${name}";r=${remaining};t=${seconds(reset)}`;
  }
  return [
    ['ratelimit-policy', policies],
    ['ratelimit', limits],
  ];
}

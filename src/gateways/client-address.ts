import { normalizeIp } from '../keys/ip.ts';

/** Longer texts are no address, whatever stands in them. */
const MAX_CHARACTERS = 128;
const V4_AND_PORT = /^(\d+\.\d+\.\d+\.\d+):\d{1,5}$/;
const IN_BRACKETS = /^\[([^[\]]+)\](?::\d{1,5})?$/;
const ZONE = /%[\w.~-]{1,64}$/;

/** An address as proxies write it, with a port or a zone or neither; undefined for anything else. */
export function addressIn(text: string): string | undefined {
  const trimmed = text.trim();
  if (trimmed.length > MAX_CHARACTERS) return undefined;
  const bare = V4_AND_PORT.exec(trimmed)?.[1] ?? IN_BRACKETS.exec(trimmed)?.[1] ?? trimmed;
  return normalizeIp(bare.includes(':') ? bare.replace(ZONE, '') : bare);
}

/**
 * The entry of `x-forwarded-for` that the nth proxy from here has written, counted from the right: only those are
 * not the client's to choose. Undefined when there are fewer.
 */
export function entryFromRight(forwardedFor: string, n: number): string | undefined {
  let end = forwardedFor.length;
  for (let passed = 1; passed < n; passed++) {
    end = forwardedFor.lastIndexOf(',', end - 1);
    if (end < 1) return undefined;
  }
  return forwardedFor.slice(forwardedFor.lastIndexOf(',', end - 1) + 1, end);
}

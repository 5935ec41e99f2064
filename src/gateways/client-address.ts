import { normalizeIp } from '../keys/ip.ts';

/** A longer text is not an address. */
const MAX_CHARACTERS = 128;
const V4_AND_PORT = /^(\d+\.\d+\.\d+\.\d+):\d{1,5}$/;
const IN_BRACKETS = /^\[([^[\]]+)\](?::\d{1,5})?$/;
const ZONE = /%[\w.~-]{1,64}$/;

/** The address in a text from a proxy, with or without a port or a zone; undefined for anything else. */
export function addressIn(text: string): string | undefined {
  const trimmed = text.trim();
  if (trimmed.length > MAX_CHARACTERS) return undefined;
  const bare = V4_AND_PORT.exec(trimmed)?.[1] ?? IN_BRACKETS.exec(trimmed)?.[1] ?? trimmed;
  return normalizeIp(bare.includes(':') ? bare.replace(ZONE, '') : bare);
}

/**
 * The `x-forwarded-for` entry written by the nth proxy from here, counted from the right: the client can choose all
 * entries to its left. Undefined when there are fewer.
 */
export function entryFromRight(forwardedFor: string, n: number): string | undefined {
  let end = forwardedFor.length;
  for (let passed = 1; passed < n; passed++) {
    end = forwardedFor.lastIndexOf(',', end - 1);
    if (end < 1) return undefined;
  }
  return forwardedFor.slice(forwardedFor.lastIndexOf(',', end - 1) + 1, end);
}

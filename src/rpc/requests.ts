import { Violations } from '../keys/errors.ts';
import { networkOf } from '../keys/ip.ts';
import type { CallOrigin } from '../keys/ports/audit.ts';
import type { Subscriber } from '../watch/subscription.ts';

/** Scopes for admin calls. */
export const ADMIN = { anyOf: ['apikeys:admin'] };
/** Scopes for admin calls that only read. */
export const READ = { anyOf: ['apikeys:audit', 'apikeys:admin'] };

/** The subscriber of a stream. */
export function subscriberOf({ callerKeyId, peerIp }: CallOrigin): Subscriber {
  return { keyId: callerKeyId, network: networkOf(peerIp) };
}

/** Runs a reader of fields; throws all its violations at once. */
export function checked<T>(read: (found: Violations) => T): T {
  const found = new Violations();
  const value = read(found);
  found.throwIfAny();
  return value;
}

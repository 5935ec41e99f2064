import { Violations } from '../keys/errors.ts';
import { networkOf } from '../keys/ip.ts';
import type { CallOrigin } from '../keys/ports/audit.ts';
import type { Subscriber } from '../watch/subscription.ts';

/** What admin calls need. */
export const ADMIN = { anyOf: ['apikeys:admin'] };
/** What admin calls need that only read. */
export const READ = { anyOf: ['apikeys:audit', 'apikeys:admin'] };

/** Who listens to a stream. */
export function subscriberOf({ callerKeyId, peerIp }: CallOrigin): Subscriber {
  return { keyId: callerKeyId, network: networkOf(peerIp) };
}

/** Runs a reader of fields; throws all that it found wrong at once. */
export function checked<T>(read: (found: Violations) => T): T {
  const found = new Violations();
  const value = read(found);
  found.throwIfAny();
  return value;
}

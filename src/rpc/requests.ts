import { Violations } from '../keys/errors.ts';

/** What admin calls need. */
export const ADMIN = { anyOf: ['apikeys:admin'] };
/** What admin calls need that only read. */
export const READ = { anyOf: ['apikeys:audit', 'apikeys:admin'] };

/** Runs a reader of fields; throws all that it found wrong at once. */
export function checked<T>(read: (found: Violations) => T): T {
  const found = new Violations();
  const value = read(found);
  found.throwIfAny();
  return value;
}

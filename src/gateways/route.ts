import type { Violations } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';

/** A route's configuration for the requests that it guards. */
export interface Route {
  readonly requiredScope: string | undefined;
  readonly cost: number;
  /** How many of the operator's proxies append to `x-forwarded-for`; with 0 that header is not read. */
  readonly trustedHops: number;
  /** The decision is made and recorded, but every request is let through. */
  readonly dryRun: boolean;
}

const MAX_HOPS = 16;
const MAX_NAME = 64;

type Values = Record<'cost' | 'trusted_hops' | 'dry_run', string | undefined>;

/** Reads the options of a route. @param scope the name and value of the option for the scope */
export function readRoute(
  found: Violations,
  scope: readonly [name: string, value: string | undefined],
  values: Values,
): Route {
  return {
    requiredScope: fields.requiredScope(found, ...scope),
    cost: values.cost === undefined ? 1 : costIn(found, values.cost),
    trustedHops: values.trusted_hops === undefined ? 0 : hopsIn(found, values.trusted_hops),
    dryRun: values.dry_run === undefined ? false : flagIn(found, 'dry_run', values.dry_run),
  };
}

/** Refuses unknown names: a typo must not silently disable a check. */
export function refuseUnknown(found: Violations, names: Iterable<string>, known: ReadonlySet<string>): void {
  for (const name of names)
    if (!known.has(name))
      found.add(nameToTell(name), `there is no such option; known: ${[...known].join(', ')}`);
}

function costIn(found: Violations, text: string): number {
  if (/^\d{1,12}$/.test(text)) return fields.cost(found, 'cost', BigInt(text));
  found.add('cost', 'a whole number');
  return 1;
}

function hopsIn(found: Violations, text: string): number {
  const hops = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN;
  if (!(hops >= 1 && hops <= MAX_HOPS)) found.add('trusted_hops', `a whole number from 1 to ${MAX_HOPS}`);
  return hops;
}

function flagIn(found: Violations, name: string, text: string): boolean {
  if (text !== 'true' && text !== 'false') found.add(name, 'true or false');
  return text === 'true';
}

/** The name as it may be logged: shortened, with other characters replaced. */
function nameToTell(name: string): string {
  return name.slice(0, MAX_NAME).replace(/[^\w.-]/g, '?');
}

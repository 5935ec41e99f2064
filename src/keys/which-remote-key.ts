import { ApiError } from './errors.ts';
import type { RemoteKeyRecord, SeenRemoteKey } from './remote-keys.ts';

interface Named {
  readonly id: string;
  readonly name: string;
}

/**
 * The key meant by an id or a name: one listed by the other system, else one known only from the records.
 * An id must match as listed: other systems also read `010` as a number.
 */
export function whichRemoteKey<S extends Named, R extends Named>(
  asked: string,
  there: readonly S[],
  records: readonly R[],
): { readonly there: S } | { readonly record: R } | undefined {
  const seen = only(asked, there);
  if (seen !== undefined) return { there: seen };
  const record = only(asked, records);
  return record === undefined ? undefined : { record };
}

/** @throws ApiError when several keys match. */
function only<T extends Named>(asked: string, keys: readonly T[]): T | undefined {
  const meant = keys.filter(({ id, name }) => id === asked || name === asked);
  if (meant.length <= 1) return meant[0];
  const told = meant.slice(0, MAX_TOLD).map(({ id, name }) => `${id} (${JSON.stringify(name)})`);
  const more = meant.length > MAX_TOLD ? ` and ${meant.length - MAX_TOLD} more` : '';
  const byId = meant.some(({ id }) => id === asked);
  const advice = byId ? 'rename or end the other one there' : 'give the id of one';
  throw new ApiError(
    'REMOTE_AMBIGUOUS',
    `${JSON.stringify(asked)} means several keys: ${told.join(', ')}${more}; ${advice}`,
  );
}

const MAX_TOLD = 10;

/** Whether the listed key still has the secret created from here, as far as its ending shows. */
export function hasSameSecret(record: RemoteKeyRecord, { ending }: SeenRemoteKey): boolean {
  return ending === '' || record.lastEight.endsWith(ending) || ending.endsWith(record.lastEight);
}

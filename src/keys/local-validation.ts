import type { Key, SecretSlot } from './key.ts';
import type { Verdict } from './validate-key.ts';

/** The facts from which a guard decides by itself while its lease holds. */
export interface LocalFacts {
  readonly key: Key;
  readonly slot: SecretSlot;
  readonly revision: number;
}

/**
 * The facts of a decided call; undefined when a guard may not know them: the key has no local validation, or its state
 * or secret is one that only a change by an admin brings back.
 */
export function localFacts({ decision, key, slot, found }: Verdict): LocalFacts | undefined {
  if (decision === 'LOCKED_OUT' || key === undefined || slot === undefined || slot === 'RETIRED')
    return undefined;
  if (!key.localValidation || key.revokeTime !== undefined || key.disabled || key.rateLimits.length > 0)
    return undefined;
  return { key, slot, revision: found?.revision ?? 0 };
}

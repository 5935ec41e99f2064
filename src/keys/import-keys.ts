import { auditEntry } from './audit-entry.ts';
import { ApiError, type FieldViolation, Violations } from './errors.ts';
import { keyOf, type NewKey, requireHeld } from './manage-keys.ts';
import type { CallOrigin, Clock, Holder, KeyStore } from './ports.ts';
import { hintOfHash } from './secret.ts';

/** A key of another system: its secret is not known, and works on. */
export interface ImportedKey {
  readonly key: NewKey;
  readonly secretHash: string;
}

export interface ImportResult {
  /** Undefined where the key would be made. */
  readonly keyId: string | undefined;
  readonly existing: boolean;
}

export class ImportKeys {
  readonly #keys: KeyStore;
  readonly #clock: Clock;

  constructor(keys: KeyStore, clock: Clock) {
    this.#keys = keys;
    this.#clock = clock;
  }

  /** What is in the way of each, beyond what its fields say; nothing is written. */
  async check(items: readonly ImportedKey[], origin: CallOrigin) {
    const holders = await this.#holders(items);
    return items.map((item) => ({
      ...resultOf(holders.get(item.secretHash)),
      problems: problemsOf(item, holders, origin),
    }));
  }

  /** Makes the keys whose hashes are not known yet, each with an event of its own; all are checked before. */
  async run(items: readonly ImportedKey[], origin: CallOrigin): Promise<readonly ImportResult[]> {
    for (const { key } of items) requireHeld(key.scopes, origin);
    const holders = await this.#holders(items);
    const found = new Violations();
    for (const [i, item] of items.entries())
      for (const { field, description } of problemsOf(item, holders, origin))
        found.add(`keys[${i}].${field}`, description);
    found.throwIfAny();
    const fresh = items.filter(({ secretHash }) => !holders.has(secretHash));
    const made = await this.#make(fresh, origin);
    return items.map(({ secretHash }) => {
      const keyId = made.get(secretHash);
      return keyId === undefined ? resultOf(holders.get(secretHash)) : { keyId, existing: false };
    });
  }

  async #make(fresh: readonly ImportedKey[], origin: CallOrigin): Promise<ReadonlyMap<string, string>> {
    const inserts = fresh.map(({ key: input, secretHash }) => {
      const key = keyOf(input, { hash: secretHash, hint: hintOfHash(secretHash) }, this.#clock.now());
      return { key, entry: auditEntry(origin, this.#clock, { outcome: 'OK', keyId: key.id }) };
    });
    const inserted = await this.#keys.insertMany(inserts);
    if (inserted.some(({ outcome }) => outcome !== 'INSERTED'))
      throw new ApiError('TOO_MUCH_CONTENTION', 'others are making these keys at the same time, try again');
    return new Map(fresh.map(({ secretHash }, i) => [secretHash, inserts[i]?.key.id ?? '']));
  }

  #holders(items: readonly ImportedKey[]): Promise<ReadonlyMap<string, Holder>> {
    return this.#keys.holdersOf(items.map(({ secretHash }) => secretHash));
  }
}

function resultOf(holder: Holder | undefined): ImportResult {
  return { keyId: holder?.keyId, existing: holder !== undefined };
}

function problemsOf(
  { key, secretHash }: ImportedKey,
  holders: ReadonlyMap<string, Holder>,
  origin: CallOrigin,
): readonly FieldViolation[] {
  const found = new Violations();
  const holder = holders.get(secretHash);
  // A secret that was taken out of use must not come back by the side door.
  if (holder?.retired === true) found.add('key_hash', `a retired secret of ${holder.keyId}`);
  try {
    requireHeld(key.scopes, origin);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    found.add('scopes', error.message);
  }
  return found.found;
}

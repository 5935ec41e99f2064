import { auditEntry } from './audit-entry.ts';
import { ApiError, type FieldViolation, Violations } from './errors.ts';
import { keyOf, type NewKey, notHeld, requireHeld } from './manage-keys.ts';
import type { CallOrigin } from './ports/audit.ts';
import type { Clock } from './ports/clock.ts';
import type { KeyStore, SecretOwner } from './ports/key-store.ts';
import { hintOfHash } from './secret.ts';

/** A key of another system. Its secret is not known here, and still works. */
export interface ImportedKey {
  readonly key: NewKey;
  readonly secretHash: string;
}

export interface ImportResult {
  /** Undefined with validate_only, when the key would be created. */
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

  /** The problems of each item beyond its fields, such as retired secrets and missing scopes; writes nothing. */
  async check(items: readonly ImportedKey[], origin: CallOrigin) {
    const holders = await this.#holders(items);
    return items.map((item) => {
      const holder = holders.get(item.secretHash);
      return { ...resultOf(holder), problems: [...retiredProblem(holder), ...scopeProblem(item, origin)] };
    });
  }

  /** Creates the keys whose hashes are new, each with its own event. All items are checked before the first write. */
  async run(items: readonly ImportedKey[], origin: CallOrigin): Promise<readonly ImportResult[]> {
    for (const { key } of items) requireHeld(key.scopes, origin);
    const holders = await this.#holders(items);
    const found = new Violations();
    for (const [i, { secretHash }] of items.entries())
      for (const { field, description } of retiredProblem(holders.get(secretHash)))
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

  #holders(items: readonly ImportedKey[]): Promise<ReadonlyMap<string, SecretOwner>> {
    return this.#keys.holdersOf(items.map(({ secretHash }) => secretHash));
  }
}

function resultOf(holder: SecretOwner | undefined): ImportResult {
  return { keyId: holder?.keyId, existing: holder !== undefined };
}

/** A secret that was retired must not become valid again through an import. */
function retiredProblem(holder: SecretOwner | undefined): readonly FieldViolation[] {
  if (holder?.retired !== true) return [];
  return [{ field: 'key_hash', description: `a retired secret of ${holder.keyId}` }];
}

function scopeProblem({ key }: ImportedKey, origin: CallOrigin): readonly FieldViolation[] {
  const refusal = notHeld(key.scopes, origin);
  return refusal === undefined ? [] : [{ field: 'scopes', description: refusal.message }];
}

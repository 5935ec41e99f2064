import { auditEntry } from './audit-entry.ts';
import { allDenials } from './check.ts';
import { ApiError, Violations } from './errors.ts';
import { IpAllowlist } from './ip.ts';
import type { Key, KeyType, RateLimit, RevokeReason, RotationMode } from './key.ts';
import { slotOf } from './key.ts';
import { localValidation } from './key-fields.ts';
import { changesStanding, standingOf } from './narrowing.ts';
import type { AuditEntry, CallOrigin } from './ports/audit.ts';
import type { Clock } from './ports/clock.ts';
import type { KeyChange, KeyFilter, KeyStore } from './ports/key-store.ts';
import type { Observer } from './ports/observer.ts';
import type { Page, Paged } from './ports/page.ts';
import type { Revocations } from './ports/revocations.ts';
import type { GraceBounds, Rotated, RotationEffects } from './rotation.ts';
import { completeRotation, graceOf, rotate, rotationStateOf } from './rotation.ts';
import { isControlScope, matchingGrant } from './scope.ts';
import { hashSecret, hintOf, mintEtag, mintKeyId, mintRotationId, mintSecret } from './secret.ts';

/** How long a request_id refers to the key created with it. */
export const REQUEST_ID_MS = 24 * 3_600_000;
const MAX_ATTEMPTS = 16;

export interface NewKey {
  readonly name: string;
  readonly ownerId: string;
  readonly type: KeyType;
  readonly scopes: readonly string[];
  readonly rateLimits: readonly RateLimit[];
  readonly rateLimitBucket: string;
  readonly expireTime?: number | undefined;
  readonly ttlMs?: number | undefined;
  readonly ipAllowlist: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly requestId: string;
  readonly rotateEveryMs?: number | undefined;
  readonly localValidation?: boolean;
}

/** The fields an UpdateKey may name, each with its new value. */
export type KeyPatch = Partial<
  Pick<
    Key,
    | 'name'
    | 'ownerId'
    | 'scopes'
    | 'rateLimits'
    | 'rateLimitBucket'
    | 'ipAllowlist'
    | 'metadata'
    | 'disabled'
    | 'rotateEveryMs'
    | 'localValidation'
  >
>;

export interface ManageKeysParts {
  readonly keys: KeyStore;
  readonly clock: Clock;
  readonly graceBounds: GraceBounds;
  readonly observer: Pick<Observer, 'rotated'>;
  /** Which texts are looked up in the store at all. */
  readonly mayBeSecret: (text: string) => boolean;
  /** Undefined without a revocation log. */
  readonly revocations?: Revocations | undefined;
  /** Guards that the store does not wait for by itself. */
  readonly guards?: { waitFor(revision: number): Promise<void> } | undefined;
}

/** The life cycle of keys. Every change is stored together with its audit event. */
export class ManageKeys {
  readonly #keys: KeyStore;
  readonly #clock: Clock;
  readonly #graceBounds: GraceBounds;
  readonly #observer: Pick<Observer, 'rotated'>;
  readonly #mayBeSecret: (text: string) => boolean;
  readonly #revocations: Revocations | undefined;
  readonly #guards: ManageKeysParts['guards'];

  constructor({ keys, clock, graceBounds, observer, mayBeSecret, revocations, guards }: ManageKeysParts) {
    this.#revocations = revocations;
    this.#guards = guards;
    this.#keys = keys;
    this.#clock = clock;
    this.#graceBounds = graceBounds;
    this.#observer = observer;
    this.#mayBeSecret = mayBeSecret;
  }

  /** Creates a key. `secret` is given only for the bootstrap key. */
  async create(input: NewKey, origin: CallOrigin, secret?: string): Promise<{ key: Key; secret: string }> {
    requireHeld(input.scopes, origin);
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const minted = secret ?? mintSecret();
      const key = newKey(input, minted, this.#clock.now());
      const inserted = await this.#keys.insert(
        key,
        this.#entry(origin, key.id, { requestId: input.requestId }),
      );
      if (inserted.outcome === 'INSERTED') return { key: inserted.key, secret: minted };
      if (inserted.outcome === 'REQUEST_ID_USED') await this.#releaseRequestId(inserted.key, input.requestId);
      // The only other outcome is a collision of random numbers: mint again.
    }
    throw new ApiError('TOO_MUCH_CONTENTION', 'the key could not be stored, try again');
  }

  /** Releases a request_id older than a day; a younger one still refers to its key, which is an error. */
  async #releaseRequestId(holder: Key, requestId: string): Promise<void> {
    if (this.#clock.now() - holder.createTime < REQUEST_ID_MS) {
      throw new ApiError(
        'REQUEST_ID_USED',
        `request_id was used to create ${holder.id}; its secret cannot be shown again`,
        {
          keyId: holder.id,
        },
      );
    }
    await this.#keys.forgetRequestId(holder.id, requestId);
  }

  async get(id: string): Promise<Key> {
    const key = await this.#keys.get(id);
    if (key === undefined) throw new ApiError('KEY_NOT_FOUND', `no key ${id}`, { keyId: id });
    return key;
  }

  list(filter: KeyFilter, page: Page): Promise<Paged<Key>> {
    return this.#keys.list(filter, page);
  }

  /** @param etag the version the caller has seen; '' means any. */
  update(id: string, patch: KeyPatch, etag: string, origin: CallOrigin): Promise<Key> {
    return this.#change(id, 'UPDATED', origin, (key) => {
      if (etag !== '' && etag !== key.etag) {
        throw new ApiError('ETAG_MISMATCH', 'the key was changed since this etag was read', { keyId: id });
      }
      if (patch.scopes !== undefined)
        requireHeld(
          patch.scopes.filter((s) => !key.scopes.includes(s)),
          origin,
        );
      const bucket = patch.rateLimitBucket === '' ? { rateLimitBucket: id } : {};
      const next = { ...key, ...patch, ...bucket };
      const found = new Violations();
      localValidation(found, 'key.local_validation', next.localValidation, next.rateLimits.length);
      found.throwIfAny();
      return { key: { ...next, everLocal: key.everLocal || next.localValidation } };
    });
  }

  /**
   * A repeated revoke keeps the first time and reason, and is written to the revocation log again before its answer.
   */
  revoke(id: string, reason: RevokeReason, note: string, origin: CallOrigin): Promise<Key> {
    return this.#change(id, 'REVOKED', origin, (read) => ({
      key: {
        ...read,
        revokeTime: read.revokeTime ?? this.#clock.now(),
        revokeReason: read.revokeReason ?? reason,
        revokeNote: read.revokeTime === undefined ? note : read.revokeNote,
      },
    }));
  }

  /**
   * A working secret proves possession; repeating the call with the same secret succeeds. When the answer has no key,
   * the secret does not work, and `proven` says whether it was ever a secret of some key.
   */
  async revokeOwn(
    secret: string,
    reason: RevokeReason,
    origin: CallOrigin,
  ): Promise<{ key?: Key; proven: boolean }> {
    if (!this.#mayBeSecret(secret)) return { proven: false };
    const secretHash = hashSecret(secret);
    const found = await this.#keys.findByHash(secretHash);
    const { key } = found;
    const slot = slotOf(found, secretHash);
    if (key === undefined || slot === undefined) return { proven: false };
    const question = { requiredScope: undefined, clientIp: undefined, now: this.#clock.now() };
    const denials = allDenials(key, slot, question).filter((denial) => denial !== 'IP_NOT_ALLOWED');
    if (denials.length > 0 && key.revokeTime === undefined) return { proven: true };
    return { key: await this.revoke(key.id, reason, 'revoked by its holder', origin), proven: true };
  }

  /** @param time undefined means now: the key expires as a state, at once and by no clock. */
  expire(id: string, time: number | undefined, origin: CallOrigin): Promise<Key> {
    return this.#change(id, 'EXPIRED', origin, (read) => {
      const limit = read.expireTime ?? Number.POSITIVE_INFINITY;
      if (time === undefined)
        return { key: { ...read, expired: true, expireTime: Math.min(limit, this.#clock.now()) } };
      if (time > limit) {
        throw new ApiError('INVALID_REQUEST', 'expire_time: later than the key expires already', {
          violations: [{ field: 'expire_time', description: 'later than the key expires already' }],
        });
      }
      return { key: { ...read, expireTime: time } };
    });
  }

  /**
   * Mints a new secret; the old one keeps working for the grace.
   * @param askedGraceMs undefined means the default of the type and mode.
   */
  async rotate(
    id: string,
    mode: RotationMode,
    askedGraceMs: number | undefined,
    origin: CallOrigin,
  ): Promise<{ key: Key; secret: string }> {
    const secret = mintSecret();
    const minted = { hash: hashSecret(secret), hint: hintOf(secret), rotationId: mintRotationId() };
    let effects: RotationEffects | undefined;
    const key = await this.#change(id, 'ROTATED', origin, (read) => {
      // The caller receives the new secret, and with it everything that the key may do.
      requireHeld(read.scopes, origin);
      const graceMs = graceOf(read.type, mode, askedGraceMs, this.#graceBounds);
      const rotated = rotate(read, mode, graceMs, minted, this.#clock.now());
      effects = rotated.effects;
      return rotated;
    });
    if (effects?.begun !== undefined) this.#observer.rotated(key, effects.begun);
    return { key, secret };
  }

  /** Keeps only the new secret; before the grace is over this ends the old secret at once. */
  completeRotation(id: string, origin: CallOrigin): Promise<Key> {
    return this.#change(id, 'ROTATED', origin, (read) => completeRotation(read, this.#clock.now()));
  }

  /** Completes this rotation if its grace is over; changes made by others in between stand. */
  async completeIfOver(key: Key, origin: CallOrigin): Promise<void> {
    const now = this.#clock.now();
    if (rotationStateOf(key, now) !== 'EXPIRED') return;
    const { key: next, effects } = completeRotation(key, now);
    const version = { ...next, etag: mintEtag() };
    const entry = this.#entry(origin, key.id);
    const stored = await this.#keys.replace(version, key.etag, 'ROTATED', entry, effects);
    if (stored !== undefined) await this.#noteStanding(stored, effects);
  }

  /** Disables a key; false when it is disabled or revoked already. */
  async disable(id: string, origin: CallOrigin): Promise<boolean> {
    const key = await this.get(id);
    if (key.disabled || key.revokeTime !== undefined) return false;
    await this.update(id, { disabled: true }, '', origin);
    return true;
  }

  async #change(
    id: string,
    change: KeyChange,
    origin: CallOrigin,
    to: (key: Key) => { key: Key } | Rotated,
  ): Promise<Key> {
    // A change that ends a key does not wait for the revocation log.
    if (change !== 'REVOKED' && change !== 'EXPIRED') await this.#revocations?.ready();
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const key = await this.get(id);
      if (key.revokeTime !== undefined && change !== 'REVOKED') {
        throw new ApiError('KEY_REVOKED', 'a revoked key cannot be changed', { keyId: id });
      }
      const changed = to(key);
      const next = { ...changed.key, etag: mintEtag() };
      const effects = 'effects' in changed ? changed.effects : undefined;
      const stored = await this.#keys.replace(next, key.etag, change, this.#entry(origin, id), effects);
      if (stored === undefined) continue;
      // A call may be a retry because the revocation log could not be written the first time.
      if (change !== 'UPDATED' || changesStanding(key, stored)) await this.#noteStanding(stored, effects);
      if (stored.everLocal && (effects?.narrows ?? true)) await this.#guards?.waitFor(stored.revision);
      return stored;
    }
    throw new ApiError('TOO_MUCH_CONTENTION', 'the key is being changed by others, try again', { keyId: id });
  }

  /** Before the answer, a narrowed key is recorded outside the store, too. */
  async #noteStanding(stored: Key, effects: RotationEffects | undefined): Promise<void> {
    const time = this.#clock.now();
    const retired = (effects?.retired ?? []).map((hash) => ({ hash, time }));
    const { id: keyId, revision } = stored;
    await this.#revocations?.note({ keyId, revision, time, standing: standingOf(stored), retired });
  }

  #entry(origin: CallOrigin, keyId: string, facts: Partial<AuditEntry> = {}): AuditEntry {
    return auditEntry(origin, this.#clock, { outcome: 'OK', keyId, ...facts });
  }
}

/** A caller cannot grant control scopes that its own key does not hold. */
export function requireHeld(scopes: readonly string[], origin: CallOrigin): void {
  const refusal = notHeld(scopes, origin);
  if (refusal !== undefined) throw refusal;
}

/** The refusal, or undefined when every control scope is held. */
export function notHeld(scopes: readonly string[], origin: CallOrigin): ApiError | undefined {
  const missing = scopes.find(
    (s) => isControlScope(s) && matchingGrant(origin.callerScopes, s) === undefined,
  );
  if (missing === undefined) return undefined;
  return new ApiError('SCOPE_NOT_HELD', `the calling key cannot grant ${missing}, which it does not hold`);
}

/** A key with a newly minted secret. */
function newKey(input: NewKey, secret: string, now: number): Key {
  return keyOf(input, { hash: hashSecret(secret), hint: hintOf(secret) }, now);
}

/** The first version of a key. */
export function keyOf(input: NewKey, { hash, hint }: { hash: string; hint: string }, now: number): Key {
  const id = mintKeyId();
  return {
    id,
    name: input.name,
    ownerId: input.ownerId,
    type: input.type,
    secrets: [{ hash, createTime: now }],
    hint,
    scopes: input.scopes,
    rateLimits: input.rateLimits,
    rateLimitBucket: input.rateLimitBucket || id,
    ipAllowlist: new IpAllowlist(input.ipAllowlist),
    metadata: input.metadata,
    disabled: false,
    createTime: now,
    expireTime: input.ttlMs === undefined ? input.expireTime : now + input.ttlMs,
    expired: false,
    rotation: undefined,
    rotateEveryMs: input.rotateEveryMs,
    localValidation: input.localValidation === true,
    everLocal: input.localValidation === true,
    revokeTime: undefined,
    revokeReason: undefined,
    revokeNote: '',
    lastUseTime: undefined,
    requestId: input.requestId || undefined,
    etag: mintEtag(),
    revision: 0,
  };
}

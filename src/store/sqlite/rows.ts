import { IpAllowlist } from '../../keys/ip.ts';
import type { Key } from '../../keys/key.ts';
import { rotationDueTime } from '../../keys/rotation.ts';
import type { Value } from './thread-messages.ts';

/** The columns of api_keys in the order of keyValues; without `revision`, which the transaction sets. */
export const KEY_COLUMNS = [
  'id',
  'name',
  'owner_id',
  'key_type',
  'secrets',
  'hint',
  'scopes',
  'rate_limits',
  'rate_limit_bucket',
  'ip_allowlist',
  'metadata',
  'disabled',
  'create_time',
  'expire_time',
  'expired',
  'rotation',
  'rotation_expire_time',
  'rotate_every_ms',
  'rotation_due_time',
  'revoke_time',
  'revoke_reason',
  'revoke_note',
  'request_id',
  'etag',
  'local_validation',
  'ever_local',
] as const;

export function keyValues(key: Key): Value[] {
  return [
    key.id,
    key.name,
    key.ownerId,
    key.type,
    JSON.stringify(key.secrets),
    key.hint,
    JSON.stringify(key.scopes),
    JSON.stringify(key.rateLimits),
    key.rateLimitBucket,
    JSON.stringify(key.ipAllowlist.cidrs),
    JSON.stringify(key.metadata),
    key.disabled ? 1 : 0,
    key.createTime,
    key.expireTime ?? null,
    key.expired ? 1 : 0,
    key.rotation === undefined ? null : JSON.stringify(key.rotation),
    key.rotation?.expireTime ?? null,
    key.rotateEveryMs ?? null,
    rotationDueTime(key) ?? null,
    key.revokeTime ?? null,
    key.revokeReason ?? null,
    key.revokeNote,
    key.requestId ?? null,
    key.etag,
    key.localValidation ? 1 : 0,
    key.everLocal ? 1 : 0,
  ];
}

/** The select list for reading a key: the columns, then the revision. */
export const KEY_SELECT = [...KEY_COLUMNS, 'revision'].map((column) => `k.${column}`).join(', ');

type Column = (typeof KEY_COLUMNS)[number] | 'revision';
const PLACES = Object.fromEntries([...KEY_COLUMNS, 'revision'].map((column, i) => [column, i])) as Record<
  Column,
  number
>;

/** Caches the parsed values of texts that many keys share; the shared values must never be modified. */
const MAX_REMEMBERED = 4_096;

class Remembered<T> {
  readonly #parse: (text: string) => T;
  readonly #known = new Map<string, T>();

  constructor(parse: (text: string) => T) {
    this.#parse = parse;
  }

  get(text: string): T {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    if (this.#known.size >= MAX_REMEMBERED) this.#known.clear();
    const value = this.#parse(text);
    this.#known.set(text, value);
    return value;
  }
}

/** Reads keys from their columns. */
export class KeyReader {
  readonly #scopes = new Remembered((text): Key['scopes'] => JSON.parse(text));
  readonly #rateLimits = new Remembered((text): Key['rateLimits'] => JSON.parse(text));
  readonly #allowlists = new Remembered((text) => new IpAllowlist(JSON.parse(text)));
  readonly #metadata = new Remembered((text): Key['metadata'] => JSON.parse(text));

  /** @param row as KEY_SELECT selects it */
  read(row: readonly Value[], lastUseTime?: number): Key {
    const at = (name: Column) => row[PLACES[name]] ?? null;
    const text = (name: Column) => String(at(name));
    const time = (name: Column) => (at(name) === null ? undefined : Number(at(name)));
    return {
      id: text('id'),
      name: text('name'),
      ownerId: text('owner_id'),
      type: text('key_type') as Key['type'],
      secrets: JSON.parse(text('secrets')),
      hint: text('hint'),
      scopes: this.#scopes.get(text('scopes')),
      rateLimits: this.#rateLimits.get(text('rate_limits')),
      rateLimitBucket: text('rate_limit_bucket'),
      ipAllowlist: this.#allowlists.get(text('ip_allowlist')),
      metadata: this.#metadata.get(text('metadata')),
      disabled: at('disabled') === 1,
      createTime: Number(at('create_time')),
      expireTime: time('expire_time'),
      expired: at('expired') === 1,
      rotation: at('rotation') === null ? undefined : JSON.parse(text('rotation')),
      rotateEveryMs: time('rotate_every_ms'),
      revokeTime: time('revoke_time'),
      revokeReason: (at('revoke_reason') ?? undefined) as Key['revokeReason'],
      revokeNote: text('revoke_note'),
      lastUseTime,
      requestId: at('request_id') === null ? undefined : text('request_id'),
      localValidation: at('local_validation') === 1,
      everLocal: at('ever_local') === 1,
      etag: text('etag'),
      revision: Number(at('revision')),
    };
  }
}

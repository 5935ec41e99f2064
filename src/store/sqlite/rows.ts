import { IpAllowlist } from '../../keys/ip.ts';
import type { Key } from '../../keys/key.ts';
import { rotationDueTime } from '../../keys/rotation.ts';
import type { Value } from './thread.ts';

/** Every column of api_keys but revision, which the transaction gives, in the order of keyValues. */
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
  'last_use_time',
  'request_id',
  'etag',
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
    key.lastUseTime ?? null,
    key.requestId ?? null,
    key.etag,
  ];
}

export function toKey(row: Record<string, Value>): Key {
  const text = (name: string) => String(row[name]);
  const time = (name: string) => (row[name] === null ? undefined : Number(row[name]));
  return {
    id: text('id'),
    name: text('name'),
    ownerId: text('owner_id'),
    type: text('key_type') as Key['type'],
    secrets: JSON.parse(text('secrets')),
    hint: text('hint'),
    scopes: JSON.parse(text('scopes')),
    rateLimits: JSON.parse(text('rate_limits')),
    rateLimitBucket: text('rate_limit_bucket'),
    ipAllowlist: new IpAllowlist(JSON.parse(text('ip_allowlist'))),
    metadata: JSON.parse(text('metadata')),
    disabled: row.disabled === 1,
    createTime: Number(row.create_time),
    expireTime: time('expire_time'),
    expired: row.expired === 1,
    rotation: row.rotation === null ? undefined : JSON.parse(text('rotation')),
    rotateEveryMs: time('rotate_every_ms'),
    revokeTime: time('revoke_time'),
    revokeReason: (row.revoke_reason ?? undefined) as Key['revokeReason'],
    revokeNote: text('revoke_note'),
    lastUseTime: time('last_use_time'),
    requestId: row.request_id === null ? undefined : text('request_id'),
    etag: text('etag'),
    revision: Number(row.revision),
  };
}

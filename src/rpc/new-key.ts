import type { CreateKeyRequest, ImportedKey } from '../../gen/apikey/v1/admin_pb.ts';
import type { Violations } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';
import type { NewKey } from '../keys/manage-keys.ts';
import { millisOf, rateLimitsOf, rotateEveryOf, timeOf } from './convert.ts';
import { keyTypeOf } from './enums.ts';
import { checked } from './requests.ts';

const DAY_MS = 86_400_000;

/** The key to create. @throws ApiError INVALID_REQUEST */
export function newKeyOf(request: CreateKeyRequest, now: number): NewKey {
  return checked((found) => {
    const key = newKeyFieldsOf(found, request);
    const { case: expiry, value } = request.expiry;
    const expireTime = expiry === 'expireTime' ? timeOf(found, 'expire_time', value) : undefined;
    if (expireTime !== undefined && expireTime <= now) found.add('expire_time', 'in the past');
    const ttlMs = expiry === 'ttl' ? Math.floor(millisOf(value)) : undefined;
    // A century is more than any real key needs, and keeps the sum a valid date.
    if (ttlMs !== undefined && !(ttlMs > 0 && ttlMs <= 36_525 * DAY_MS))
      found.add('ttl', 'above 0, at most 100 years');
    const requestId = fields.optionalText(found, 'request_id', request.requestId);
    return { ...key, requestId, expireTime, ttlMs };
  });
}

/** The fields that new and imported keys share. */
export function newKeyFieldsOf(found: Violations, message: CreateKeyRequest | ImportedKey) {
  const type = keyTypeOf(found, 'key_type', message.keyType);
  if (message.keyType === 0) found.add('key_type', 'required');
  return {
    name: fields.requiredText(found, 'name', message.name),
    ownerId: fields.requiredText(found, 'owner_id', message.ownerId),
    type: type ?? 'USER',
    scopes: fields.grants(found, 'scopes', message.scopes),
    rateLimits: rateLimitsOf(found, 'rate_limits', message.rateLimits),
    rateLimitBucket: fields.optionalText(found, 'rate_limit_bucket', message.rateLimitBucket),
    ipAllowlist: fields.ipAllowlist(found, 'ip_allowlist', message.ipAllowlist),
    metadata: fields.metadata(found, 'metadata', message.metadata),
    rotateEveryMs: rotateEveryOf(found, 'rotate_every', message.rotateEvery),
    localValidation: fields.localValidation(
      found,
      'local_validation',
      message.localValidation,
      message.rateLimits.length,
    ),
  } as const;
}

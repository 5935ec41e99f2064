import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ApiKeyAdmin, ListKeysRequest } from '../../gen/apikey/v1/admin_pb.ts';
import type { Key as KeyMessage } from '../../gen/apikey/v1/key_pb.ts';
import { ApiError, type Violations } from '../keys/errors.ts';
import type { ImportKeys } from '../keys/import-keys.ts';
import { IpAllowlist } from '../keys/ip.ts';
import type { Key, KeyStatus } from '../keys/key.ts';
import * as fields from '../keys/key-fields.ts';
import type { KeyPatch } from '../keys/manage-keys.ts';
import type { Backups } from '../keys/ports/backups.ts';
import type { KeyFilter, KeyStore } from '../keys/ports/key-store.ts';
import type { Lockout, QuotaLimiter } from '../keys/ports/limits.ts';
import { forAudit } from '../keys/text.ts';
import { type AuditMethodsParts, auditMethods } from './audit-methods.ts';
import { backupMethods } from './backup-methods.ts';
import { rateLimitsOf, rotateEveryOf, timeOf, toKeyMessage, toRateLimitState } from './convert.ts';
import { keyStatusOf, keyTypeOf, revokeReasonOf } from './enums.ts';
import { importMethods } from './import-methods.ts';
import type { ServiceImplementation } from './method.ts';
import { newKeyOf } from './new-key.ts';
import { type NoticeMethodsParts, noticeMethods } from './notice-methods.ts';
import { pageOf, tokenOf } from './page-token.ts';
import { ADMIN, checked, READ } from './requests.ts';
import { type RotationMethodsParts, rotationMethods } from './rotation-methods.ts';
import { type UsageMethodsParts, usageMethods } from './usage-methods.ts';

export interface AdminServiceParts
  extends RotationMethodsParts,
    NoticeMethodsParts,
    UsageMethodsParts,
    AuditMethodsParts {
  readonly keys: KeyStore;
  readonly lockout: Lockout;
  readonly quota: QuotaLimiter;
  readonly importKeys: ImportKeys;
  readonly backups: Backups;
}

const DAY_MS = 86_400_000;
/** Enough to list each field twice. */
const MAX_PATHS = 32;

/** ApiKeyAdmin: each method reads its request, calls one use case and writes its response. */
export function adminService(parts: AdminServiceParts): ServiceImplementation<typeof ApiKeyAdmin> {
  return {
    ...keyReads(parts),
    ...keyChanges(parts),
    ...importMethods(parts),
    ...rotationMethods(parts),
    ...noticeMethods(parts),
    ...usageMethods(parts),
    ...auditMethods(parts),
    ...reportMethods(parts),
    ...backupMethods(parts),
  };
}

function keyReads({ manageKeys, rotations, quota, clock }: AdminServiceParts) {
  /** Adds the uses of old secrets, which are stored apart from the keys. */
  const withUses = async (keys: readonly Key[]) => {
    const uses = await rotations.oldUses(keys.flatMap(({ rotation }) => rotation?.id ?? []));
    return keys.map((key) => toKeyMessage(key, clock.now(), uses.get(key.rotation?.id ?? '') ?? 0));
  };
  return {
    getKey: {
      access: READ,
      async handle({ id }) {
        const key = await manageKeys.get(checked((found) => fields.keyId(found, 'id', id)));
        const limits = { bucket: key.rateLimitBucket, limits: key.rateLimits, cost: 0 };
        const [[found], { states }] = await Promise.all([withUses([key]), quota.peek(limits)]);
        return { message: { key: found, limits: states.map(toRateLimitState) }, event: { keyId: key.id } };
      },
    },
    listKeys: {
      access: READ,
      async handle(request) {
        const { filter, page, mark } = checked((found) => {
          const ownerId = fields.optionalText(found, 'owner_id', request.ownerId);
          const type = keyTypeOf(found, 'key_type', request.keyType);
          const status = statusFilterOf(found, request);
          const prefix = fields.optionalText(found, 'query', request.query);
          const mark = { ownerId, type, status, prefix };
          const filter: KeyFilter = {
            ...(ownerId === '' ? {} : { ownerId }),
            ...(type === undefined ? {} : { type }),
            ...(status === undefined ? {} : { status: { is: status, at: clock.now() } }),
            ...(prefix === '' ? {} : { prefix }),
          };
          return { filter, mark, page: pageOf(found, request, 'keys', mark) };
        });
        const { items, next } = await manageKeys.list(filter, page);
        return {
          message: { keys: await withUses(items), nextPageToken: tokenOf(next, 'keys', mark) },
          event: {},
        };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

function keyChanges({ manageKeys, clock }: AdminServiceParts) {
  const message = (key: Key) => toKeyMessage(key, clock.now());
  return {
    createKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { key, secret } = await manageKeys.create(newKeyOf(request, clock.now()), origin);
        return { message: { key: message(key), secret } };
      },
    },
    updateKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { id, patch } = checked((found) => {
          if (request.key === undefined) found.add('key', 'required');
          const paths = request.updateMask?.paths ?? [];
          if (paths.length === 0) found.add('update_mask', 'name at least one field');
          const key = request.key ?? ({} as KeyMessage);
          fields.optionalText(found, 'key.etag', key.etag ?? '');
          return { id: fields.keyId(found, 'key.id', key.id ?? ''), patch: patchOf(found, key, paths) };
        });
        const key = await manageKeys.update(id, patch, request.key?.etag ?? '', origin);
        return { message: { key: message(key) } };
      },
    },
    revokeKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { id, reason, note } = checked((found) => ({
          id: fields.keyId(found, 'id', request.id),
          reason: revokeReasonOf(found, 'reason', request.reason),
          note: fields.optionalText(found, 'note', request.note),
        }));
        const key = await manageKeys.revoke(id, reason, note, origin);
        return { message: { key: message(key), revision: BigInt(key.revision) } };
      },
    },
    expireKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { id, time } = checked((found) => {
          const time = timeOf(found, 'expire_time', request.expireTime);
          if (time !== undefined && time <= clock.now())
            found.add('expire_time', 'in the past; leave it out for now');
          return { id: fields.keyId(found, 'id', request.id), time };
        });
        return { message: { key: message(await manageKeys.expire(id, time, origin)) } };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

function reportMethods({ keys, audit, lockout, clock }: AdminServiceParts) {
  return {
    getStats: {
      access: READ,
      async handle() {
        const now = clock.now();
        const [counts, outcomes, auditEvents, lockouts, revision] = await Promise.all([
          keys.count(now),
          audit.countByOutcome(now - DAY_MS),
          audit.count(),
          lockout.count(),
          keys.revision(),
        ]);
        return {
          message: {
            keysByStatus: bigints(Object.entries(counts.byStatus)),
            keysByType: bigints(Object.entries(counts.byType)),
            eventsByOutcome: bigints(outcomes),
            auditEvents: BigInt(auditEvents),
            lockouts: BigInt(lockouts),
            revision: BigInt(revision),
          },
          event: {},
        };
      },
    },
    listLockouts: {
      access: READ,
      async handle(request) {
        const { items, next } = await lockout.list(
          checked((found) => pageOf(found, request, 'lockouts', {})),
        );
        const lockouts = items.map(({ clientIp, expireTime }) => ({
          clientIp,
          expireTime: timestampFromMs(expireTime),
        }));
        return { message: { lockouts, nextPageToken: tokenOf(next, 'lockouts', {}) }, event: {} };
      },
    },
    clearLockout: {
      access: ADMIN,
      async handle(request) {
        const clientIp = checked((found) => {
          if (request.clientIp === '') found.add('client_ip', 'required');
          // Accepts an IPv6 /64 as ListLockouts shows it.
          const address = request.clientIp.replace(/(:.*)\/64$/, '$1');
          return fields.clientIp(found, 'client_ip', address) ?? '';
        });
        if (!(await lockout.clear(clientIp))) {
          throw new ApiError('LOCKOUT_NOT_FOUND', `no failures are counted for ${clientIp}`);
        }
        return { message: {}, event: { clientIp } };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

/** The fields that the mask names; an unknown or immutable path is a violation. */
function patchOf(found: Violations, key: KeyMessage, paths: readonly string[]): KeyPatch {
  const at = (field: string) => `key.${field}`;
  const readers: Record<string, () => KeyPatch> = {
    name: () => ({ name: fields.requiredText(found, at('name'), key.name) }),
    owner_id: () => ({ ownerId: fields.requiredText(found, at('owner_id'), key.ownerId) }),
    scopes: () => ({ scopes: fields.grants(found, at('scopes'), key.scopes) }),
    rate_limits: () => ({ rateLimits: rateLimitsOf(found, at('rate_limits'), key.rateLimits) }),
    rate_limit_bucket: () => ({
      rateLimitBucket: fields.optionalText(found, at('rate_limit_bucket'), key.rateLimitBucket),
    }),
    ip_allowlist: () => ({
      ipAllowlist: new IpAllowlist(fields.ipAllowlist(found, at('ip_allowlist'), key.ipAllowlist)),
    }),
    metadata: () => ({ metadata: fields.metadata(found, at('metadata'), key.metadata) }),
    disabled: () => ({ disabled: key.disabled }),
    local_validation: () => ({ localValidation: key.localValidation }),
    rotate_every: () => ({ rotateEveryMs: rotateEveryOf(found, at('rotate_every'), key.rotateEvery) }),
  };
  if (paths.length > MAX_PATHS) {
    found.add('update_mask', `at most ${MAX_PATHS} paths, got ${paths.length}`);
    return {};
  }
  const patches = paths.map((path) => {
    const reader = Object.hasOwn(readers, path) ? readers[path] : undefined;
    if (reader === undefined)
      found.add('update_mask', `${forAudit(path, 64)} is not a field that can be changed`);
    return reader === undefined || key.id === undefined ? {} : reader();
  });
  return Object.assign({}, ...patches);
}

function statusFilterOf(found: Violations, { status, activeOnly }: ListKeysRequest): KeyStatus | undefined {
  const asked = keyStatusOf(found, 'status', status);
  if (!activeOnly) return asked;
  if (asked !== undefined && asked !== 'ACTIVE') found.add('status', 'active_only allows only ACTIVE');
  return 'ACTIVE';
}

function bigints(entries: Iterable<readonly [string, number]>): Record<string, bigint> {
  return Object.fromEntries([...entries].map(([name, count]) => [name, BigInt(count)]));
}

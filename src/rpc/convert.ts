import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';
import { durationFromMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { AuditEventSchema } from '../../gen/apikey/v1/audit_pb.ts';
import {
  Decision,
  type ValidateKeyRequest,
  type ValidateKeyResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';
import { type KeySchema, KeyStatus, KeyType, RevokeReason, SecretSlot } from '../../gen/apikey/v1/key_pb.ts';
import type { Decision as DecisionName } from '../keys/check.ts';
import type { Violations } from '../keys/errors.ts';
import type {
  Key,
  RateLimit,
  RevokeReason as RevokeReasonName,
  SecretSlot as SlotName,
  KeyStatus as StatusName,
  KeyType as TypeName,
} from '../keys/key.ts';
import { statusOf } from '../keys/key.ts';
import * as fields from '../keys/key-fields.ts';
import type { AuditRecord } from '../keys/ports.ts';
import type { RateLimitState } from '../keys/quota.ts';
import type { ValidateInput, Verdict } from '../keys/validate-key.ts';

// One row a word, in both directions; the compiler names the missing ones.
const DECISIONS = {
  LOCKED_OUT: Decision.LOCKED_OUT,
  MALFORMED: Decision.MALFORMED,
  NOT_FOUND: Decision.NOT_FOUND,
  REVOKED: Decision.REVOKED,
  DISABLED: Decision.DISABLED,
  EXPIRED: Decision.EXPIRED,
  ROTATED: Decision.ROTATED,
  IP_NOT_ALLOWED: Decision.IP_NOT_ALLOWED,
  INSUFFICIENT_SCOPE: Decision.INSUFFICIENT_SCOPE,
  RATE_LIMITED: Decision.RATE_LIMITED,
  VALID: Decision.VALID,
} as const satisfies Record<DecisionName, Decision>;

const TYPES = {
  SYSTEM: KeyType.SYSTEM,
  USER: KeyType.USER,
  SERVICE: KeyType.SERVICE,
  INTEGRATION: KeyType.INTEGRATION,
  EMERGENCY: KeyType.EMERGENCY,
} as const satisfies Record<TypeName, KeyType>;

const STATUSES = {
  ACTIVE: KeyStatus.ACTIVE,
  DISABLED: KeyStatus.DISABLED,
  EXPIRED: KeyStatus.EXPIRED,
  REVOKED: KeyStatus.REVOKED,
} as const satisfies Record<StatusName, KeyStatus>;

const REASONS = {
  KEY_COMPROMISE: RevokeReason.KEY_COMPROMISE,
  SUPERSEDED: RevokeReason.SUPERSEDED,
  AFFILIATION_CHANGED: RevokeReason.AFFILIATION_CHANGED,
  CESSATION_OF_OPERATION: RevokeReason.CESSATION_OF_OPERATION,
  PRIVILEGE_WITHDRAWN: RevokeReason.PRIVILEGE_WITHDRAWN,
} as const satisfies Record<RevokeReasonName, RevokeReason>;

const SLOTS = {
  CURRENT: SecretSlot.CURRENT,
  PREVIOUS: SecretSlot.PREVIOUS,
} as const satisfies Record<SlotName, SecretSlot>;

/** The word for an enum's number; UNSPECIFIED is undefined, a number nobody knows is a violation. */
function wordOf<W extends string>(table: Record<W, number>, found: Violations, field: string, value: number) {
  if (value === 0) return undefined;
  const word = (Object.keys(table) as W[]).find((name) => table[name] === value);
  if (word === undefined) found.add(field, `no value ${value}`);
  return word;
}

export function keyTypeOf(found: Violations, field: string, value: KeyType): TypeName | undefined {
  return wordOf(TYPES, found, field, value);
}

export function secretSlotOf(found: Violations, field: string, value: SecretSlot): SlotName | undefined {
  return wordOf(SLOTS, found, field, value);
}

/** A required reason. */
export function revokeReasonOf(found: Violations, field: string, value: RevokeReason): RevokeReasonName {
  if (value === RevokeReason.UNSPECIFIED) found.add(field, 'required');
  return wordOf(REASONS, found, field, value) ?? 'KEY_COMPROMISE';
}

const MIN_SECONDS = -62_135_596_800n;
const MAX_SECONDS = 253_402_300_799n;

/** Milliseconds since 1970, parts of a millisecond dropped. */
export function timeOf(found: Violations, field: string, value: Timestamp | undefined): number | undefined {
  if (value === undefined) return undefined;
  const { seconds, nanos } = value;
  if (seconds < MIN_SECONDS || seconds > MAX_SECONDS || nanos < 0 || nanos > 999_999_999) {
    found.add(field, 'a time from year 1 to 9999');
    return undefined;
  }
  return Number(seconds) * 1000 + Math.floor(nanos / 1e6);
}

/** Milliseconds; NaN for what is no duration, so that every bound refuses it. */
export function millisOf(value: Duration | undefined): number {
  if (value === undefined) return Number.NaN;
  const { seconds, nanos } = value;
  const sane = Math.abs(nanos) < 1e9 && seconds < 315_576_000_000n && seconds > -315_576_000_000n;
  return sane && (nanos === 0 || seconds === 0n || nanos > 0 === seconds > 0n)
    ? Number(seconds) * 1000 + nanos / 1e6
    : Number.NaN;
}

export function rateLimitsOf(
  found: Violations,
  field: string,
  limits: readonly { name: string; limit: bigint; window?: Duration | undefined }[],
): readonly RateLimit[] {
  const plain = limits.map(({ name, limit, window }) => ({
    name,
    limit: Number(limit),
    windowMs: millisOf(window),
  }));
  return fields.rateLimits(found, field, plain);
}

/** The request in the domain's words. What is wrong is named under `at`. */
export function toValidateInput(found: Violations, at: string, request: ValidateKeyRequest): ValidateInput {
  if (request.minRevision < 0n) found.add(`${at}min_revision`, '0 or more');
  return {
    secret: request.key,
    requiredScope: fields.requiredScope(found, `${at}required_scope`, request.requiredScope),
    clientIp: fields.clientIp(found, `${at}client_ip`, request.clientIp),
    userAgent: request.userAgent.slice(0, fields.BOUNDS.userAgentCharacters),
    requestId: fields.optionalText(found, `${at}request_id`, request.requestId),
    cost: fields.cost(found, `${at}cost`, request.cost),
    dryRun: request.dryRun,
    minRevision: Number(request.minRevision),
  };
}

export function toValidateResponse(verdict: Verdict): MessageInitShape<typeof ValidateKeyResponseSchema> {
  const { decision, key, slot, quota, found } = verdict;
  const response: MessageInitShape<typeof ValidateKeyResponseSchema> = {
    decision: DECISIONS[decision],
    valid: decision === 'VALID',
    reasons: verdict.reasons.map((reason) => DECISIONS[reason]),
    revision: BigInt(found?.revision ?? 0),
  };
  if (verdict.retryAfterMs !== undefined)
    response.retryAfter = durationFromMs(Math.ceil(verdict.retryAfterMs));
  if (found !== undefined) response.cacheAge = durationFromMs(Math.floor(found.ageMs));
  if (key === undefined || slot === undefined) return response;
  response.keyId = key.id;
  response.keyType = TYPES[key.type];
  response.ownerId = key.ownerId;
  response.matchedScope = verdict.matchedScope ?? '';
  response.secretSlot = SLOTS[slot];
  response.unlimited = key.rateLimits.length === 0;
  if (key.expireTime !== undefined) response.expireTime = timestampFromMs(key.expireTime);
  if (slot === 'PREVIOUS' && key.previousSecretExpireTime !== undefined) {
    response.previousSecretExpireTime = timestampFromMs(key.previousSecretExpireTime);
  }
  if (quota !== undefined) response.rateLimits = quota.states.map(toRateLimitState);
  return response;
}

function toRateLimitState(state: RateLimitState) {
  return {
    name: state.name,
    bucket: state.bucket,
    limit: BigInt(state.limit),
    window: durationFromMs(state.windowMs),
    remaining: BigInt(state.remaining),
    exceeded: state.exceeded,
    ...(state.resetTime === undefined ? {} : { resetTime: timestampFromMs(state.resetTime) }),
    ...(state.retryAfterMs === undefined
      ? {}
      : { retryAfter: durationFromMs(Math.ceil(state.retryAfterMs)) }),
  };
}

export function toKeyMessage(key: Key, now: number): MessageInitShape<typeof KeySchema> {
  const time = (ms: number | undefined) => (ms === undefined ? undefined : timestampFromMs(ms));
  const optional = {
    expireTime: time(key.expireTime),
    revokeTime: time(key.revokeTime),
    lastUseTime: time(key.lastUseTime),
  };
  return {
    id: key.id,
    name: key.name,
    ownerId: key.ownerId,
    keyType: TYPES[key.type],
    status: STATUSES[statusOf(key, now)],
    scopes: [...key.scopes],
    rateLimits: key.rateLimits.map(({ name, limit, windowMs }) => ({
      name,
      limit: BigInt(limit),
      window: durationFromMs(windowMs),
    })),
    rateLimitBucket: key.rateLimitBucket,
    ipAllowlist: [...key.ipAllowlist.cidrs],
    metadata: { ...key.metadata },
    disabled: key.disabled,
    createTime: timestampFromMs(key.createTime),
    revokeReason: key.revokeReason === undefined ? RevokeReason.UNSPECIFIED : REASONS[key.revokeReason],
    revokeNote: key.revokeNote,
    hint: key.hint,
    etag: key.etag,
    revision: BigInt(key.revision),
    ...(Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)) as object),
  };
}

export function toEventMessage(event: AuditRecord): MessageInitShape<typeof AuditEventSchema> {
  return {
    id: event.id,
    time: timestampFromMs(event.time),
    method: event.method,
    outcome: event.outcome,
    reason: event.reason,
    keyId: event.keyId,
    callerKeyId: event.callerKeyId,
    keyFingerprint: event.keyFingerprint,
    requiredScope: event.requiredScope,
    clientIp: event.clientIp,
    clientIpIsPeer: event.clientIpIsPeer,
    userAgent: event.userAgent,
    secretSlot: event.secretSlot === '' ? SecretSlot.UNSPECIFIED : SLOTS[event.secretSlot],
    cost: BigInt(event.cost),
    dryRun: event.dryRun,
    latency: {
      seconds: BigInt(Math.floor(event.latencyMicros / 1e6)),
      nanos: (event.latencyMicros % 1e6) * 1000,
    },
    requestId: event.requestId,
    processId: event.processId,
    sequence: BigInt(event.sequence),
    servedBy: event.servedBy,
    refusedCalls: BigInt(event.refusedCalls),
  };
}

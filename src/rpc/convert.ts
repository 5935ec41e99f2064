import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';
import { durationFromMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { RotationSchema } from '../../gen/apikey/v1/admin_pb.ts';
import type { AuditEventSchema } from '../../gen/apikey/v1/audit_pb.ts';
import type {
  KeyFactsSchema,
  ValidateKeyRequest,
  ValidateKeyResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';
import { type KeySchema, RevokeReason, SecretSlot } from '../../gen/apikey/v1/key_pb.ts';
import type { AlertSchema, AnomalySchema } from '../../gen/apikey/v1/watch_pb.ts';
import { AUDIT_FIELDS, type FieldKind } from '../audit/fields.ts';
import type { Defect } from '../audit/verify.ts';
import type { Violations } from '../keys/errors.ts';
import type { Key, RateLimit, SecretSlot as SlotName } from '../keys/key.ts';
import { statusOf } from '../keys/key.ts';
import * as fields from '../keys/key-fields.ts';
import { localFacts } from '../keys/local-validation.ts';
import type { Alert, Anomaly } from '../keys/notices.ts';
import type { AuditRecord } from '../keys/ports/audit.ts';
import type { RotationRecord } from '../keys/ports/rotations.ts';
import type { RateLimitState } from '../keys/quota.ts';
import { rotationDueTime, rotationStateOf } from '../keys/rotation.ts';
import { forAudit } from '../keys/text.ts';
import type { ValidateInput, Verdict } from '../keys/validate-key.ts';
import {
  ALERT_TYPES,
  ANOMALY_STATES,
  ANOMALY_TYPES,
  DECISIONS,
  DEFECTS,
  MODES,
  REASONS,
  ROTATION_STATES,
  SLOTS,
  STATUSES,
  TYPES,
} from './enums.ts';

const MIN_SECONDS = -62_135_596_800n;
const MAX_SECONDS = 253_402_300_799n;

/** Milliseconds since 1970, rounded down. */
export function timeOf(found: Violations, field: string, value: Timestamp | undefined): number | undefined {
  if (value === undefined) return undefined;
  const { seconds, nanos } = value;
  if (seconds < MIN_SECONDS || seconds > MAX_SECONDS || nanos < 0 || nanos > 999_999_999) {
    found.add(field, 'a time from year 1 to 9999');
    return undefined;
  }
  return Number(seconds) * 1000 + Math.floor(nanos / 1e6);
}

/** Milliseconds; NaN for an invalid duration, so that every bound rejects it. */
export function millisOf(value: Duration | undefined): number {
  if (value === undefined) return Number.NaN;
  const { seconds, nanos } = value;
  const sane = Math.abs(nanos) < 1e9 && seconds < 315_576_000_000n && seconds > -315_576_000_000n;
  return sane && (nanos === 0 || seconds === 0n || nanos > 0 === seconds > 0n)
    ? Number(seconds) * 1000 + nanos / 1e6
    : Number.NaN;
}

/** A duration in whole milliseconds, rounded down; undefined when absent. */
export function wholeMillisOf(
  found: Violations,
  field: string,
  value: Duration | undefined,
): number | undefined {
  if (value === undefined) return undefined;
  const ms = Math.floor(millisOf(value));
  if (!(ms >= 0)) found.add(field, 'a duration of 0 or more');
  return ms;
}

/** rotate_every; 0 or absent means never. */
export function rotateEveryOf(
  found: Violations,
  field: string,
  value: Duration | undefined,
): number | undefined {
  return fields.rotateEvery(found, field, wholeMillisOf(found, field, value) ?? 0);
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

/** The request in domain terms. Violations are reported under `at`. */
export function toValidateInput(found: Violations, at: string, request: ValidateKeyRequest): ValidateInput {
  if (request.minRevision < 0n) found.add(`${at}min_revision`, '0 or more');
  return {
    secret: request.key,
    requiredScope: fields.requiredScope(found, `${at}required_scope`, request.requiredScope),
    clientIp: fields.clientIp(found, `${at}client_ip`, request.clientIp),
    userAgent: forAudit(request.userAgent, fields.BOUNDS.userAgentCharacters),
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
  response.unlimited = key.rateLimits.length === 0;
  if (key.expireTime !== undefined) response.expireTime = timestampFromMs(key.expireTime);
  if (slot !== 'RETIRED') response.secretSlot = SLOTS[slot];
  if (key.rotation !== undefined) {
    response.previousSecretExpireTime = timestampFromMs(key.rotation.expireTime);
  }
  if (quota !== undefined) response.rateLimits = quota.states.map(toRateLimitState);
  return response;
}

/** The facts of a decided call for a guard; undefined when it may not know them. */
export function toFactsMessage(
  verdict: Verdict,
  epoch: string,
): MessageInitShape<typeof KeyFactsSchema> | undefined {
  const facts = localFacts(verdict);
  if (facts === undefined) return undefined;
  const { key, slot, revision } = facts;
  const ends = slot === 'PREVIOUS' ? key.rotation?.expireTime : undefined;
  return {
    epoch,
    scopes: [...key.scopes],
    ipAllowlist: [...key.ipAllowlist.cidrs],
    expired: key.expired,
    secretSlot: SLOTS[slot],
    revision: BigInt(revision),
    ...(key.expireTime === undefined ? {} : { expireTime: timestampFromMs(key.expireTime) }),
    ...(ends === undefined ? {} : { previousSecretExpireTime: timestampFromMs(ends) }),
  };
}

export function toRateLimitState(state: RateLimitState) {
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

/** @param oldUses of the key's current rotation */
export function toKeyMessage(key: Key, now: number, oldUses = 0): MessageInitShape<typeof KeySchema> {
  const time = (ms: number | undefined) => (ms === undefined ? undefined : timestampFromMs(ms));
  const optional = {
    expireTime: time(key.expireTime),
    revokeTime: time(key.revokeTime),
    lastUseTime: time(key.lastUseTime),
    rotationDueTime: time(rotationDueTime(key)),
    rotateEvery: key.rotateEveryMs === undefined ? undefined : durationFromMs(key.rotateEveryMs),
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
    localValidation: key.localValidation,
    createTime: timestampFromMs(key.createTime),
    revokeReason: key.revokeReason === undefined ? RevokeReason.UNSPECIFIED : REASONS[key.revokeReason],
    revokeNote: key.revokeNote,
    hint: key.hint,
    etag: key.etag,
    revision: BigInt(key.revision),
    rotation: {
      state: ROTATION_STATES[rotationStateOf(key, now)],
      ...(key.rotation === undefined
        ? {}
        : {
            mode: MODES[key.rotation.mode],
            startTime: timestampFromMs(key.rotation.startTime),
            expireTime: timestampFromMs(key.rotation.expireTime),
            oldUses: BigInt(oldUses),
          }),
    },
    ...(Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)) as object),
  };
}

export function toRotationMessage(rotation: RotationRecord): MessageInitShape<typeof RotationSchema> {
  const { completeTime, lastOldUseTime } = rotation;
  return {
    id: rotation.id,
    keyId: rotation.keyId,
    mode: MODES[rotation.mode],
    startTime: timestampFromMs(rotation.startTime),
    expireTime: timestampFromMs(rotation.expireTime),
    oldUses: BigInt(rotation.oldUses),
    lastOldUseIp: rotation.lastOldUseIp,
    ...(completeTime === undefined ? {} : { completeTime: timestampFromMs(completeTime) }),
    ...(lastOldUseTime === undefined ? {} : { lastOldUseTime: timestampFromMs(lastOldUseTime) }),
  };
}

export function toAnomalyMessage(anomaly: Anomaly): MessageInitShape<typeof AnomalySchema> {
  return {
    id: anomaly.id,
    keyId: anomaly.keyId,
    type: ANOMALY_TYPES[anomaly.type],
    state: ANOMALY_STATES[anomaly.state],
    count: BigInt(anomaly.count),
    firstTime: timestampFromMs(anomaly.firstTime),
    lastTime: timestampFromMs(anomaly.lastTime),
    ...(anomaly.resolveTime === undefined ? {} : { resolveTime: timestampFromMs(anomaly.resolveTime) }),
  };
}

export function toAlertMessage(alert: Alert): MessageInitShape<typeof AlertSchema> {
  const { id, keyId, clientIp, text } = alert;
  return {
    id,
    type: ALERT_TYPES[alert.type],
    time: timestampFromMs(alert.time),
    keyId,
    clientIp,
    text,
    detail: { ...alert.detail },
  };
}

export function toDefectMessage({ kind, processId, sequence, eventId }: Defect) {
  return { kind: DEFECTS[kind], processId, sequence: BigInt(sequence), eventId };
}

/** The name and value of each kind of field in a message. */
const TO_MESSAGE: Record<FieldKind, (name: string, value: never) => readonly [string, unknown]> = {
  text: (name, value) => [name, value],
  flag: (name, value) => [name, value],
  number: (name, value: number) => [name, BigInt(value)],
  slot: (name, value: SlotName | '') => [name, value === '' ? SecretSlot.UNSPECIFIED : SLOTS[value]],
  time: (name, value: number) => [name, value === 0 ? undefined : timestampFromMs(value)],
  micros: (name, value: number) => [
    name.replace('Micros', ''),
    { seconds: BigInt(Math.floor(value / 1e6)), nanos: (value % 1e6) * 1000 },
  ],
};

export function toEventMessage(event: AuditRecord): MessageInitShape<typeof AuditEventSchema> {
  const fields = AUDIT_FIELDS.map(({ name, kind }) => TO_MESSAGE[kind](name, event[name] as never));
  const { id, processId, servedBy, hash } = event;
  return {
    ...Object.fromEntries(fields),
    id,
    time: timestampFromMs(event.time),
    processId,
    sequence: BigInt(event.sequence),
    servedBy,
    hash,
  };
}

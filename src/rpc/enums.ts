import { UsageStep } from '../../gen/apikey/v1/admin_pb.ts';
import { AuditDefectKind } from '../../gen/apikey/v1/audit_pb.ts';
import { Decision, KeyChange } from '../../gen/apikey/v1/auth_pb.ts';
import {
  KeyStatus,
  KeyType,
  RevokeReason,
  RotationMode,
  RotationState,
  SecretSlot,
} from '../../gen/apikey/v1/key_pb.ts';
import { AlertType, AnomalyState, AnomalyType } from '../../gen/apikey/v1/watch_pb.ts';
import type { DefectKind } from '../audit/verify.ts';
import type { Decision as DecisionName } from '../keys/check.ts';
import type { Violations } from '../keys/errors.ts';
import type {
  RotationMode as ModeName,
  RevokeReason as RevokeReasonName,
  SecretSlot as SlotName,
  KeyStatus as StatusName,
  KeyType as TypeName,
} from '../keys/key.ts';
import type {
  AlertType as AlertTypeName,
  AnomalyState as AnomalyStateName,
  AnomalyType as AnomalyTypeName,
} from '../keys/notices.ts';
import type { RotationState as RotationStateName } from '../keys/rotation.ts';
import type { KeyNotice } from '../watch/key-feed.ts';

// One row per word, for both directions; the compiler reports missing rows.
export const DECISIONS = {
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

export const TYPES = {
  SYSTEM: KeyType.SYSTEM,
  USER: KeyType.USER,
  SERVICE: KeyType.SERVICE,
  INTEGRATION: KeyType.INTEGRATION,
  EMERGENCY: KeyType.EMERGENCY,
} as const satisfies Record<TypeName, KeyType>;

export const STATUSES = {
  ACTIVE: KeyStatus.ACTIVE,
  DISABLED: KeyStatus.DISABLED,
  EXPIRED: KeyStatus.EXPIRED,
  REVOKED: KeyStatus.REVOKED,
} as const satisfies Record<StatusName, KeyStatus>;

export const REASONS = {
  KEY_COMPROMISE: RevokeReason.KEY_COMPROMISE,
  SUPERSEDED: RevokeReason.SUPERSEDED,
  AFFILIATION_CHANGED: RevokeReason.AFFILIATION_CHANGED,
  CESSATION_OF_OPERATION: RevokeReason.CESSATION_OF_OPERATION,
  PRIVILEGE_WITHDRAWN: RevokeReason.PRIVILEGE_WITHDRAWN,
} as const satisfies Record<RevokeReasonName, RevokeReason>;

export const SLOTS = {
  CURRENT: SecretSlot.CURRENT,
  PREVIOUS: SecretSlot.PREVIOUS,
} as const satisfies Record<SlotName, SecretSlot>;

export const KEY_CHANGES = {
  CREATED: KeyChange.CREATED,
  UPDATED: KeyChange.UPDATED,
  REVOKED: KeyChange.REVOKED,
  EXPIRED: KeyChange.EXPIRED,
  ROTATED: KeyChange.ROTATED,
  RESET: KeyChange.RESET,
} as const satisfies Record<NonNullable<KeyNotice['change']>, KeyChange>;

export const DEFECTS = {
  CHANGED: AuditDefectKind.CHANGED,
  MISSING: AuditDefectKind.MISSING,
  INSERTED: AuditDefectKind.INSERTED,
  TRUNCATED: AuditDefectKind.TRUNCATED,
  NOTE: AuditDefectKind.NOTE,
  UNLISTED: AuditDefectKind.UNLISTED,
} as const satisfies Record<DefectKind, AuditDefectKind>;

export const MODES = {
  MANUAL: RotationMode.MANUAL,
  FORCED: RotationMode.FORCED,
} as const satisfies Record<ModeName, RotationMode>;

export const ROTATION_STATES = {
  NONE: RotationState.NONE,
  ACTIVE: RotationState.ACTIVE,
  EXPIRED: RotationState.EXPIRED,
} as const satisfies Record<RotationStateName, RotationState>;

export const ANOMALY_TYPES = {
  HIGH_REQUEST_RATE: AnomalyType.HIGH_REQUEST_RATE,
  HIGH_ERROR_RATE: AnomalyType.HIGH_ERROR_RATE,
  MULTIPLE_IPS: AnomalyType.MULTIPLE_IPS,
  UNUSUAL_TIME: AnomalyType.UNUSUAL_TIME,
} as const satisfies Record<AnomalyTypeName, AnomalyType>;

export const ANOMALY_STATES = {
  OPEN: AnomalyState.OPEN,
  RESOLVED: AnomalyState.RESOLVED,
} as const satisfies Record<AnomalyStateName, AnomalyState>;

export const ALERT_TYPES = {
  ANOMALY: AlertType.ANOMALY,
  OLD_KEY_LATE_USE: AlertType.OLD_KEY_LATE_USE,
  OLD_KEY_REJECTED: AlertType.OLD_KEY_REJECTED,
  ROTATION_NOT_CLEANED_UP: AlertType.ROTATION_NOT_CLEANED_UP,
  ROTATION_DUE: AlertType.ROTATION_DUE,
  KEY_EXPIRING: AlertType.KEY_EXPIRING,
  LOCKOUT: AlertType.LOCKOUT,
} as const satisfies Record<AlertTypeName, AlertType>;

const USAGE_STEPS = { HOUR: UsageStep.HOUR, DAY: UsageStep.DAY } as const;

/** The word for an enum's number: undefined for UNSPECIFIED; an unknown number is a violation. */
function wordOf<W extends string>(table: Record<W, number>, found: Violations, field: string, value: number) {
  if (value === 0) return undefined;
  const word = (Object.keys(table) as W[]).find((name) => table[name] === value);
  if (word === undefined) found.add(field, `no value ${value}`);
  return word;
}

export function keyTypeOf(found: Violations, field: string, value: KeyType): TypeName | undefined {
  return wordOf(TYPES, found, field, value);
}

export function keyStatusOf(found: Violations, field: string, value: KeyStatus): StatusName | undefined {
  return wordOf(STATUSES, found, field, value);
}

export function secretSlotOf(found: Violations, field: string, value: SecretSlot): SlotName | undefined {
  return wordOf(SLOTS, found, field, value);
}

export function rotationModeOf(found: Violations, field: string, value: RotationMode): ModeName | undefined {
  return wordOf(MODES, found, field, value);
}

export function anomalyTypeOf(
  found: Violations,
  field: string,
  value: AnomalyType,
): AnomalyTypeName | undefined {
  return wordOf(ANOMALY_TYPES, found, field, value);
}

export function anomalyStateOf(
  found: Violations,
  field: string,
  value: AnomalyState,
): AnomalyStateName | undefined {
  return wordOf(ANOMALY_STATES, found, field, value);
}

/** A required reason for a revocation. */
export function revokeReasonOf(found: Violations, field: string, value: RevokeReason): RevokeReasonName {
  if (value === RevokeReason.UNSPECIFIED) found.add(field, 'required');
  return wordOf(REASONS, found, field, value) ?? 'KEY_COMPROMISE';
}

export function usageStepOf(found: Violations, field: string, value: UsageStep): 'HOUR' | 'DAY' | undefined {
  return wordOf(USAGE_STEPS, found, field, value);
}

/** The decision in an audit event's outcome, `DECISION_VALID` and the like. */
export function decisionOfOutcome(outcome: string): Decision {
  return DECISIONS[outcome.slice('DECISION_'.length) as DecisionName] ?? Decision.UNSPECIFIED;
}

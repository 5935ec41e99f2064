import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from '../../gen/google/rpc/error_details_pb.ts';
import type { ErrorCode } from '../keys/errors.ts';
import { ApiError } from '../keys/errors.ts';

/** The domain of every ErrorInfo. */
export const ERROR_DOMAIN = 'apikey.v1';

interface ErrorRow {
  readonly status: Code;
  /** Counted in a gap event instead of recorded: the log or the server is down or overloaded. */
  readonly unrecorded?: true;
  /** The kind of condition for PreconditionFailure. */
  readonly precondition?: string;
  /** The quota for QuotaFailure. */
  readonly quota?: string;
}

/** THE table of each ErrorCode's form on the wire. ErrorInfo.reason is the ErrorCode itself. */
export const ERRORS = {
  INVALID_REQUEST: { status: Code.InvalidArgument },
  MESSAGE_TOO_LARGE: { status: Code.ResourceExhausted },
  REQUEST_NOT_RECEIVED: { status: Code.Canceled },
  ENCODING_UNKNOWN: { status: Code.Unimplemented },
  CREDENTIAL_MISSING: { status: Code.Unauthenticated },
  CREDENTIAL_INVALID: { status: Code.Unauthenticated },
  SECRET_NOT_WORKING: { status: Code.Unauthenticated },
  SCOPE_MISSING: { status: Code.PermissionDenied },
  SCOPE_NOT_HELD: { status: Code.PermissionDenied },
  KEY_NOT_FOUND: { status: Code.NotFound },
  LOCKOUT_NOT_FOUND: { status: Code.NotFound },
  ANOMALY_NOT_FOUND: { status: Code.NotFound },
  INTEGRATION_OFF: { status: Code.FailedPrecondition, precondition: 'SETTING' },
  REMOTE_UNAUTHENTICATED: { status: Code.FailedPrecondition, precondition: 'REMOTE_CREDENTIALS' },
  REMOTE_REFUSED: { status: Code.FailedPrecondition, precondition: 'REMOTE_ANSWER' },
  REMOTE_NOT_FOUND: { status: Code.NotFound },
  REMOTE_EXISTS: { status: Code.AlreadyExists },
  REMOTE_AMBIGUOUS: { status: Code.FailedPrecondition, precondition: 'REMOTE_KEY' },
  REMOTE_RATE_LIMITED: { status: Code.ResourceExhausted, quota: 'calls to the other system' },
  REMOTE_ANSWER_UNREADABLE: { status: Code.Unavailable },
  REMOTE_TIMEOUT: { status: Code.DeadlineExceeded },
  REMOTE_UNAVAILABLE: { status: Code.Unavailable },
  REQUEST_ID_USED: { status: Code.AlreadyExists },
  KEY_REVOKED: { status: Code.FailedPrecondition, precondition: 'KEY_STATUS' },
  KEY_EXPIRED: { status: Code.FailedPrecondition, precondition: 'KEY_STATUS' },
  ROTATION_IN_PROGRESS: { status: Code.FailedPrecondition, precondition: 'ROTATION_STATE' },
  NO_ROTATION: { status: Code.FailedPrecondition, precondition: 'ROTATION_STATE' },
  GRACE_OUT_OF_BOUNDS: { status: Code.InvalidArgument },
  REVISION_NOT_REACHED: { status: Code.FailedPrecondition, precondition: 'REVISION' },
  ETAG_MISMATCH: { status: Code.Aborted },
  TOO_MUCH_CONTENTION: { status: Code.Aborted },
  CALLER_RATE_LIMITED: { status: Code.ResourceExhausted, quota: 'a rate limit of the calling key' },
  PEER_LOCKED_OUT: { status: Code.ResourceExhausted, quota: 'failed credentials of this address' },
  TOO_MANY_WRONG_CREDENTIALS: {
    status: Code.ResourceExhausted,
    unrecorded: true,
    quota: 'failed credentials of this address',
  },
  SUBSCRIBER_TOO_SLOW: { status: Code.ResourceExhausted, quota: 'messages waiting for this subscriber' },
  TOO_MANY_SUBSCRIBERS: { status: Code.ResourceExhausted, quota: 'subscribers of one process' },
  TOO_MANY_VERIFICATIONS: { status: Code.ResourceExhausted, quota: 'callers that wait for a verification' },
  LEASES_OFF: { status: Code.FailedPrecondition, precondition: 'SETTING' },
  TOO_MANY_GUARDS: { status: Code.ResourceExhausted, quota: 'guards of one process' },
  BACKUP_OFF: { status: Code.FailedPrecondition, precondition: 'SETTING' },
  BACKUP_NOT_HERE: { status: Code.FailedPrecondition, precondition: 'STORE' },
  BACKUP_EXISTS: { status: Code.AlreadyExists },
  BACKUP_UNDER_WAY: { status: Code.FailedPrecondition, precondition: 'BACKUP' },
  BACKUP_NOT_WRITTEN: { status: Code.FailedPrecondition, precondition: 'BACKUP_DIR' },
  SERVER_STOPPING: { status: Code.Unavailable },
  SERVER_OVERLOADED: { status: Code.ResourceExhausted, unrecorded: true },
  AUDIT_OVERLOADED: { status: Code.ResourceExhausted, unrecorded: true },
  QUOTA_OVERLOADED: { status: Code.ResourceExhausted, unrecorded: true },
  AUDIT_UNAVAILABLE: { status: Code.Unavailable, unrecorded: true },
  STORE_UNAVAILABLE: { status: Code.Unavailable, unrecorded: true },
  INTERNAL: { status: Code.Internal },
} as const satisfies Record<ErrorCode, ErrorRow>;

/** Any failure as an ApiError; an unexpected one becomes INTERNAL, and its cause is not sent. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError('INTERNAL', 'internal error', { cause: error });
}

/** The name of the gRPC code, as audit events and metrics write it. */
export function codeName(code: Code): string {
  if (code === Code.Canceled) return 'CANCELLED';
  return (Code[code] ?? 'Unknown').replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
}

export function rowOf(error: ApiError): ErrorRow {
  return ERRORS[error.code];
}

/** The ApiError that toConnectError was called with. */
export function wordedError(error: unknown): ApiError {
  return asApiError(error instanceof ConnectError ? error.cause : error);
}

/** The error with all details that apply, for either mount. */
export function toConnectError(error: ApiError, requestId: string): ConnectError {
  const { facts, code, message } = error;
  const row = rowOf(error);
  const connectError = new ConnectError(message, row.status, undefined, undefined, error);
  const details = connectError.details as { desc: unknown; value: unknown }[];
  const info = { reason: code, domain: ERROR_DOMAIN, metadata: { ...facts.metadata } };
  details.push({ desc: ErrorInfoSchema, value: create(ErrorInfoSchema, info) });
  if (facts.violations !== undefined) {
    const fieldViolations = facts.violations.map(({ field, description }) => ({ field, description }));
    details.push({ desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations }) });
  }
  if (facts.retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(Math.ceil(facts.retryAfterMs));
    details.push({ desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay }) });
  }
  if (facts.keyId !== undefined) {
    const resource = { resourceType: 'apikey.v1.Key', resourceName: facts.keyId };
    details.push({ desc: ResourceInfoSchema, value: create(ResourceInfoSchema, resource) });
  }
  const subject = facts.keyId ?? '';
  if (row.precondition !== undefined) {
    const violations = [{ type: row.precondition, subject, description: message }];
    details.push({
      desc: PreconditionFailureSchema,
      value: create(PreconditionFailureSchema, { violations }),
    });
  }
  if (row.quota !== undefined) {
    const violations = [{ subject, description: row.quota }];
    details.push({ desc: QuotaFailureSchema, value: create(QuotaFailureSchema, { violations }) });
  }
  if (requestId !== '') {
    details.push({ desc: RequestInfoSchema, value: create(RequestInfoSchema, { requestId }) });
  }
  return connectError;
}

import { Code, ConnectError } from '@connectrpc/connect';
import { ErrorInfoSchema, RetryInfoSchema } from '../../../gen/google/rpc/error_details_pb.ts';
import { milliseconds } from './verdict.ts';

const DOMAIN = 'apikey.v1';
/** The errors of apikeyd for a misconfigured guard, whose questions can never succeed. */
const MISCONFIGURED = new Set([Code.Unauthenticated, Code.PermissionDenied, Code.InvalidArgument]);
/** The errors of the transport for a lost connection. */
const LOST = new Set([Code.Unavailable, Code.Canceled, Code.Aborted]);

/** Why there is no decision. Contains only codes and reasons of apikeyd, never a text chosen by others. */
export class NoDecision extends Error {
  override readonly name = 'NoDecision';
  readonly outcome: 'UNAVAILABLE' | 'MISCONFIGURED';
  /** The gRPC code and ErrorInfo's reason, such as `UNAUTHENTICATED CREDENTIAL_INVALID`. */
  readonly detail: string;
  readonly retryAfterMs: number | undefined;
  /** No decision was made or is in progress: a retry is safe and may help. */
  readonly passing: boolean;
  /** The calling key does not work. */
  readonly refused: boolean;
  /** The error was sent by the other end. */
  readonly heard: boolean;
  /** No response until the deadline. */
  readonly silent: boolean;

  constructor(detail: string, facts: Partial<Omit<NoDecision, 'detail' | keyof Error>> = {}) {
    super(`no decision: ${detail}`);
    this.detail = detail;
    this.outcome = facts.outcome ?? 'UNAVAILABLE';
    this.retryAfterMs = facts.retryAfterMs;
    this.passing = facts.passing ?? false;
    this.refused = facts.refused ?? false;
    this.heard = facts.heard ?? false;
    this.silent = facts.silent ?? false;
  }
}

export function noDecision(thrown: unknown): NoDecision {
  if (thrown instanceof NoDecision) return thrown;
  const error = ConnectError.from(thrown);
  const [info] = error.findDetails(ErrorInfoSchema);
  const [retry] = error.findDetails(RetryInfoSchema);
  const said = info?.domain === DOMAIN;
  // An error from a server has headers; an error of the transport has none.
  const heard = [...error.metadata].length > 0;
  const lost = LOST.has(error.code) && !heard;
  return new NoDecision(said ? `${codeName(error.code)} ${info.reason}` : codeName(error.code), {
    outcome: said && MISCONFIGURED.has(error.code) ? 'MISCONFIGURED' : 'UNAVAILABLE',
    retryAfterMs: milliseconds(retry?.retryDelay),
    passing: error.code === Code.Unavailable || lost,
    refused: said && error.code === Code.Unauthenticated,
    heard,
    silent: error.code === Code.DeadlineExceeded && !heard,
  });
}

function codeName(code: Code): string {
  return (Code[code] ?? 'Unknown').replaceAll(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
}

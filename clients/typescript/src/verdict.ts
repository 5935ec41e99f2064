import type { DescEnum } from '@bufbuild/protobuf';
import { type Duration, durationMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import {
  type Decision,
  DecisionSchema,
  type RateLimitState,
  type ValidateKeyResponse,
} from '../../../gen/apikey/v1/auth_pb.ts';
import { type KeyType, KeyTypeSchema } from '../../../gen/apikey/v1/key_pb.ts';

/** The decision of apikeyd, or why there is none. */
export type Outcome =
  | Exclude<keyof typeof Decision, 'UNSPECIFIED'>
  | 'NO_KEY'
  | 'UNAVAILABLE'
  | 'MISCONFIGURED';

/** The key of the client. */
export interface KeyFacts {
  readonly id: string;
  readonly ownerId: string;
  readonly type: keyof typeof KeyType;
  /** The grant that covers the scope of the route; '' for a route without a scope. */
  readonly matchedScope: string;
}

/** The outcome for a request. */
export interface Verdict {
  readonly outcome: Outcome;
  /** Whether the request is admitted; nothing else admits it. */
  readonly allowed: boolean;
  /** The HTTP status: 200 when allowed, else the status of the response to the client. */
  readonly status: number;
  /** The error code in the body; '' when allowed. */
  readonly error: string;
  /** The gRPC code in place of `status`. */
  readonly code: Code | undefined;
  /** The headers for the client: the state of the key's limits, and for a denial the other headers of the response. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly retryAfterMs: number | undefined;
  /** For logs: why there is no decision. Never a key. */
  readonly detail: string;
  /** The guard decided by itself, under a lease. */
  readonly local: boolean;
  /** Undefined without a key or without a decision. */
  readonly key: KeyFacts | undefined;
  /** The whole response of apikeyd: limits, expiry, which secret was used. Undefined without a decision. */
  readonly answer: ValidateKeyResponse | undefined;
}

interface Reply {
  readonly status: number;
  readonly error: string;
  readonly code: Code | undefined;
}
const INVALID: Reply = { status: 401, error: 'invalid_token', code: Code.Unauthenticated };
const FORBIDDEN: Reply = { status: 403, error: 'insufficient_scope', code: Code.PermissionDenied };

/** The response to the client for each outcome. */
const REPLIES: Readonly<Record<Outcome, Reply>> = {
  VALID: { status: 200, error: '', code: undefined },
  NO_KEY: { status: 401, error: 'missing_token', code: Code.Unauthenticated },
  MALFORMED: INVALID,
  NOT_FOUND: INVALID,
  REVOKED: INVALID,
  DISABLED: INVALID,
  EXPIRED: INVALID,
  ROTATED: INVALID,
  IP_NOT_ALLOWED: FORBIDDEN,
  INSUFFICIENT_SCOPE: FORBIDDEN,
  RATE_LIMITED: { status: 429, error: 'rate_limited', code: Code.ResourceExhausted },
  LOCKED_OUT: { status: 429, error: 'too_many_failures', code: Code.ResourceExhausted },
  UNAVAILABLE: { status: 503, error: 'unavailable', code: Code.Unavailable },
  MISCONFIGURED: { status: 500, error: 'guard_misconfigured', code: Code.Internal },
};

/** The verdict on a request, with the response of apikeyd or the reason why there is none. */
export function verdict(
  outcome: Outcome,
  scope: string | undefined,
  facts: Partial<Pick<Verdict, 'retryAfterMs' | 'detail' | 'answer'>> = {},
): Verdict {
  const replied = REPLIES[outcome];
  const { detail = '', answer } = facts;
  const retryAfterMs = facts.retryAfterMs ?? (outcome === 'UNAVAILABLE' ? 1000 : undefined);
  const headers = limitHeaders(answer?.rateLimits ?? [], Date.now());
  const { status } = replied;
  if (status !== 200) headers.push(['content-type', 'application/json'], ['cache-control', 'no-store']);
  if (status === 401 || status === 403)
    headers.push(['www-authenticate', challenge(outcome, replied, scope)]);
  if (retryAfterMs !== undefined) headers.push(['retry-after', String(Math.max(1, seconds(retryAfterMs)))]);
  const key = answer === undefined || answer.keyId === '' ? undefined : keyFacts(answer);
  const allowed = outcome === 'VALID';
  return { outcome, allowed, ...replied, headers, retryAfterMs, detail, local: false, key, answer };
}

/** The verdict for a response of apikeyd; undefined when it contains no decision. */
export function verdictOn(answer: ValidateKeyResponse, scope: string | undefined): Verdict | undefined {
  const outcome = nameIn(DecisionSchema, answer.decision) as keyof typeof Decision;
  if (outcome === 'UNSPECIFIED' || (outcome === 'VALID') !== answer.valid) return undefined;
  const denied = outcome === 'RATE_LIMITED' || outcome === 'LOCKED_OUT';
  return verdict(outcome, scope, {
    answer,
    retryAfterMs: denied ? milliseconds(answer.retryAfter) : undefined,
  });
}

/** The text of the body of a denial. */
export function bodyOf({ error }: Verdict): string {
  return JSON.stringify({ error });
}

export function milliseconds(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : durationMs(duration);
}

/** RFC 6750: without a key only the scheme, else also the error. */
function challenge(outcome: Outcome, { error }: Reply, scope: string | undefined): string {
  if (outcome === 'NO_KEY') return 'Bearer';
  const named = error === 'insufficient_scope' && scope !== undefined ? `, scope="${scope}"` : '';
  return `Bearer error="${error}"${named}`;
}

/** The headers of draft-ietf-httpapi-ratelimit-headers. */
function limitHeaders(limits: readonly RateLimitState[], now: number): [string, string][] {
  if (limits.length === 0) return [];
  const policies = limits.map(
    ({ name, limit, window }) => `"${name}";q=${limit};w=${seconds(milliseconds(window) ?? 0)}`,
  );
  const states = limits.map(({ name, remaining, window, resetTime }) => {
    const reset = resetTime === undefined ? milliseconds(window) : timestampMs(resetTime) - now;
    return `"${name}";r=${remaining};t=${seconds(reset ?? 0)}`;
  });
  return [
    ['ratelimit-policy', policies.join(', ')],
    ['ratelimit', states.join(', ')],
  ];
}

const seconds = (ms: number) => Math.max(0, Math.ceil(ms / 1000));

function keyFacts({ keyId: id, keyType, ownerId, matchedScope }: ValidateKeyResponse): KeyFacts {
  return { id, type: nameIn(KeyTypeSchema, keyType) as keyof typeof KeyType, ownerId, matchedScope };
}

const nameIn = (schema: DescEnum, value: number) => schema.value[value]?.localName ?? 'UNSPECIFIED';

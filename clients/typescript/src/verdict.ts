import type { DescEnum } from '@bufbuild/protobuf';
import { type Duration, durationMs, type Timestamp, timestampDate } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import {
  type Decision,
  DecisionSchema,
  type RateLimitState,
  type ValidateKeyResponse,
} from '../../../gen/apikey/v1/auth_pb.ts';
import {
  type KeyType,
  KeyTypeSchema,
  type SecretSlot,
  SecretSlotSchema,
} from '../../../gen/apikey/v1/key_pb.ts';

/** What apikeyd decided, or why it was not asked or gave no decision. */
export type Outcome =
  | Exclude<keyof typeof Decision, 'UNSPECIFIED'>
  | 'NO_KEY'
  | 'UNAVAILABLE'
  | 'MISCONFIGURED';

/** The key that was shown. */
export interface KeyFacts {
  readonly id: string;
  readonly ownerId: string;
  readonly type: keyof typeof KeyType;
  /** The grant that covers the route's scope; '' for a route without one. */
  readonly matchedScope: string;
  readonly secretSlot: keyof typeof SecretSlot;
  readonly expireTime: Date | undefined;
  /** In a rotation: when the previous secret stops working. With the slot PREVIOUS, tell the client. */
  readonly previousSecretExpireTime: Date | undefined;
}

export interface Limit {
  readonly name: string;
  readonly limit: bigint;
  readonly remaining: bigint;
  readonly windowMs: number;
  readonly resetTime: Date | undefined;
}

/** What becomes of a request. */
export interface Verdict {
  readonly outcome: Outcome;
  /** The only thing that lets a request through. */
  readonly allowed: boolean;
  /** 200 when allowed, else what the client is answered. */
  readonly status: number;
  /** A word for the client; '' when allowed. */
  readonly error: string;
  /** The same for a client that calls by gRPC. */
  readonly code: Code | undefined;
  /** For the client: what is left of the key's limits, and for a denial the rest of its answer. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly retryAfterMs: number | undefined;
  /** For logs: why there is no decision. Never a key. */
  readonly detail: string;
  /** Undefined where there is no key or no decision. */
  readonly key: KeyFacts | undefined;
  readonly limits: readonly Limit[];
}

interface Answer {
  readonly status: number;
  readonly error: string;
  readonly code: Code | undefined;
}
const INVALID: Answer = { status: 401, error: 'invalid_token', code: Code.Unauthenticated };
const FORBIDDEN: Answer = { status: 403, error: 'insufficient_scope', code: Code.PermissionDenied };

/** THE table: what the client is answered. */
const ANSWERS: Readonly<Record<Outcome, Answer>> = {
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

type Facts = Partial<Pick<Verdict, 'retryAfterMs' | 'detail' | 'key' | 'limits'>>;

/** The verdict on a request without a decision of apikeyd, or with what it said besides. */
export function verdict(outcome: Outcome, scope: string | undefined, facts: Facts = {}): Verdict {
  const answer = ANSWERS[outcome];
  const { detail = '', key, limits = [] } = facts;
  const retryAfterMs = facts.retryAfterMs ?? (outcome === 'UNAVAILABLE' ? 1000 : undefined);
  const headers = limitHeaders(limits, Date.now());
  if (answer.status !== 200)
    headers.push(['content-type', 'application/json'], ['cache-control', 'no-store']);
  if (answer.status === 401 || answer.status === 403)
    headers.push(['www-authenticate', challenge(outcome, answer, scope)]);
  if (retryAfterMs !== undefined) headers.push(['retry-after', String(Math.max(1, seconds(retryAfterMs)))]);
  return { outcome, allowed: outcome === 'VALID', ...answer, headers, retryAfterMs, detail, key, limits };
}

/** The verdict on what apikeyd answered; undefined when that is no decision. */
export function verdictOn(response: ValidateKeyResponse, scope: string | undefined): Verdict | undefined {
  const outcome = nameIn(DecisionSchema, response.decision) as keyof typeof Decision;
  if (outcome === 'UNSPECIFIED') return undefined;
  if ((outcome === 'VALID') !== response.valid) return undefined;
  const denied = outcome === 'RATE_LIMITED' || outcome === 'LOCKED_OUT';
  return verdict(outcome, scope, {
    retryAfterMs: denied ? milliseconds(response.retryAfter) : undefined,
    key: response.keyId === '' ? undefined : keyFacts(response),
    limits: response.rateLimits.map(limitOf),
  });
}

/** The text of the body of a denial. */
export function bodyOf({ error }: Verdict): string {
  return JSON.stringify({ error });
}

export function milliseconds(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : durationMs(duration);
}

/** RFC 6750: without a key only the scheme; else what is wrong with it. */
function challenge(outcome: Outcome, { error }: Answer, scope: string | undefined): string {
  if (outcome === 'NO_KEY') return 'Bearer';
  const named = error === 'insufficient_scope' && scope !== undefined ? `, scope="${scope}"` : '';
  return `Bearer error="${error}"${named}`;
}

/** As draft-ietf-httpapi-ratelimit-headers writes them. */
function limitHeaders(limits: readonly Limit[], now: number): [string, string][] {
  if (limits.length === 0) return [];
  const policies = limits.map(({ name, limit, windowMs }) => `"${name}";q=${limit};w=${seconds(windowMs)}`);
  const states = limits.map(({ name, remaining, windowMs, resetTime }) => {
    const reset = resetTime === undefined ? windowMs : resetTime.getTime() - now;
    return `"${name}";r=${remaining};t=${seconds(reset)}`;
  });
  return [
    ['ratelimit-policy', policies.join(', ')],
    ['ratelimit', states.join(', ')],
  ];
}

const seconds = (ms: number) => Math.max(0, Math.ceil(ms / 1000));

function limitOf({ name, limit, remaining, window, resetTime }: RateLimitState): Limit {
  return { name, limit, remaining, windowMs: milliseconds(window) ?? 0, resetTime: dateOf(resetTime) };
}

function keyFacts(response: ValidateKeyResponse): KeyFacts {
  const { keyId: id, ownerId, matchedScope } = response;
  return {
    id,
    ownerId,
    matchedScope,
    type: nameIn(KeyTypeSchema, response.keyType) as keyof typeof KeyType,
    secretSlot: nameIn(SecretSlotSchema, response.secretSlot) as keyof typeof SecretSlot,
    expireTime: dateOf(response.expireTime),
    previousSecretExpireTime: dateOf(response.previousSecretExpireTime),
  };
}

const nameIn = (schema: DescEnum, value: number) => schema.value[value]?.localName ?? 'UNSPECIFIED';

const dateOf = (time: Timestamp | undefined) => (time === undefined ? undefined : timestampDate(time));

import type { Decision } from '../keys/check.ts';
import type { ApiError } from '../keys/errors.ts';
import type { ValidateInput, Verdict } from '../keys/validate-key.ts';
import { type Header, rateLimitHeaders } from './ratelimit-headers.ts';

/** The result for a held request; each proxy protocol only encodes it. */
export interface GatewayResponse {
  /** 200 lets the request through. */
  readonly status: number;
  /** Headers for the upstream, which replace the client's headers of these names. */
  readonly upstream: readonly Header[];
  /** Headers for the client. */
  readonly client: readonly Header[];
  /** The body for the client; '' when the request goes on. */
  readonly body: string;
  /** Headers of the request that carry a key. */
  readonly keyHeaders?: readonly string[];
}

/** Headers set for the upstream; the client's own headers of these names never reach it. */
export const UPSTREAM_HEADERS = [
  'x-apikey-id',
  'x-apikey-owner',
  'x-apikey-type',
  'x-apikey-scope',
  'x-apikey-decision',
] as const;

type Denied = { readonly status: 401 | 403 | 429; readonly error: string };
const INVALID: Denied = { status: 401, error: 'invalid_token' };
const FORBIDDEN: Denied = { status: 403, error: 'insufficient_scope' };

/** THE table of responses to the client. */
const RESPONSES = {
  LOCKED_OUT: { status: 429, error: 'too_many_failures' },
  MALFORMED: INVALID,
  NOT_FOUND: INVALID,
  REVOKED: INVALID,
  DISABLED: INVALID,
  EXPIRED: INVALID,
  ROTATED: INVALID,
  IP_NOT_ALLOWED: FORBIDDEN,
  INSUFFICIENT_SCOPE: FORBIDDEN,
  RATE_LIMITED: { status: 429, error: 'rate_limited' },
} as const satisfies Record<Exclude<Decision, 'VALID'>, Denied>;

/** The response to a decision. `reasons`: whether the client may see which decision it was. */
export function responseTo(
  verdict: Verdict,
  input: ValidateInput,
  now: number,
  reasons: boolean,
  keyHeaders: readonly string[],
): GatewayResponse {
  const { decision } = verdict;
  if (input.dryRun)
    return { status: 200, upstream: [['x-apikey-decision', decision]], client: [], body: '', keyHeaders };
  const client = verdict.quota === undefined ? [] : rateLimitHeaders(verdict.quota.states, now);
  if (decision === 'VALID')
    return { status: 200, upstream: upstreamHeaders(verdict), client, body: '', keyHeaders };
  const { status, error } = RESPONSES[decision];
  if (status === 429) {
    if (verdict.retryAfterMs !== undefined) client.push(retryAfter(verdict.retryAfterMs));
  } else client.push(['www-authenticate', challenge(status, input, reasons ? decision : undefined)]);
  const reason = reasons ? { reason: decision } : {};
  const told = input.keyAbsent === true ? 'missing_token' : error;
  return { status, upstream: [], client, body: JSON.stringify({ error: told, ...reason }) };
}

/** RFC 6750: without a key only the scheme; else also the error. */
function challenge(status: 401 | 403, input: ValidateInput, reason: Decision | undefined): string {
  if (input.keyAbsent === true) return 'Bearer';
  const described = reason === undefined ? '' : `, error_description="${reason}"`;
  if (status === 401) return `Bearer error="invalid_token"${described}`;
  const scope = input.requiredScope === undefined ? '' : `, scope="${input.requiredScope}"`;
  return `Bearer error="insufficient_scope"${scope}${described}`;
}

function upstreamHeaders({ key, matchedScope }: Verdict): Header[] {
  if (key === undefined) return [];
  const headers: Header[] = [
    ['x-apikey-id', key.id],
    ['x-apikey-type', key.type],
  ];
  if (key.ownerId !== '') headers.push(['x-apikey-owner', headerText(key.ownerId)]);
  if (matchedScope !== undefined) headers.push(['x-apikey-scope', matchedScope]);
  return headers;
}

/** Encodes non-printable and non-ASCII characters and `%` as `%XX` of UTF-8, so that a text cannot add a header. */
function headerText(text: string): string {
  return /^[\x21-\x24\x26-\x7e]*$/.test(text) ? text : encodeURIComponent(text.toWellFormed());
}

/** The response when there is no decision. Clients of the proxy learn nothing of the store or the configuration. */
export function failureOf(error: ApiError): GatewayResponse {
  const { retryAfterMs } = error.facts;
  if (isMisconfigured(error) || error.code === 'INTERNAL')
    return failure(500, error.code === 'INTERNAL' ? 'internal' : 'gateway_misconfigured', []);
  return failure(503, 'unavailable', [retryAfter(retryAfterMs ?? 1000)]);
}

const MISCONFIGURED = new Set([
  'INVALID_REQUEST',
  'MESSAGE_TOO_LARGE',
  'CREDENTIAL_MISSING',
  'CREDENTIAL_INVALID',
  'SCOPE_MISSING',
]);

/** Whether the proxy's configuration is wrong, not the client's request, so that retries cannot succeed. */
export function isMisconfigured(error: ApiError): boolean {
  return MISCONFIGURED.has(error.code);
}

function failure(status: number, error: string, client: Header[]): GatewayResponse {
  return { status, upstream: [], client, body: JSON.stringify({ error }) };
}

export function retryAfter(ms: number): Header {
  return ['retry-after', String(Math.max(1, Math.ceil(ms / 1000)))];
}

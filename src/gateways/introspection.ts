import { ApiError, Violations } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';
import type { CallOrigin } from '../keys/ports/audit.ts';
import { forAudit } from '../keys/text.ts';
import type { ValidateInput, ValidateKey, Verdict } from '../keys/validate-key.ts';
import type { CallPipeline } from '../rpc/call-pipeline.ts';
import { wordedError } from '../rpc/errors.ts';
import { newCall } from '../rpc/incoming-call.ts';
import type { Access, Work } from '../rpc/method.ts';
import { type Door, JSON_TYPE, NO_STORE, singleValues, type WebRequest, type WebResponse } from './door.ts';
import { type Header, rateLimitHeaders } from './ratelimit-headers.ts';
import { failureOf, retryAfter } from './response.ts';
import { refuseUnknown } from './route.ts';

/** The method name in audit events and metrics. */
const METHOD = 'http/introspect';
/** OAuth clients may send `token_type_hint` and `client_id`, which have no effect here. */
const PARAMETERS = new Set(['token', 'scope', 'client_ip', 'token_type_hint', 'client_id']);
const FORM = /^application\/x-www-form-urlencoded *(;|$)/i;
const BASIC = /^basic +([A-Za-z0-9+/]+=*)$/i;
const MAX_BODY_BYTES = 16 << 10;

export interface IntrospectionParts {
  readonly validateKey: ValidateKey;
  readonly callPipeline: CallPipeline;
  readonly access: Access;
}

interface Question {
  readonly form: string;
  readonly userAgent: string;
}

/** `POST /introspect`: OAuth 2.0 token introspection (RFC 7662), with keys as tokens. */
export class Introspection implements Door {
  readonly path = '/introspect';
  readonly #parts: IntrospectionParts;
  readonly #work: Work<Question, WebResponse>;

  constructor(parts: IntrospectionParts) {
    this.#parts = parts;
    const { access, validateKey, callPipeline } = parts;
    this.#work = {
      access,
      handle: async (question, origin) => {
        const verdict = await validateKey.run(inputOf(question, origin), origin);
        return { message: responseTo(verdict, callPipeline.clock.now()) };
      },
    };
  }

  async respond(request: WebRequest): Promise<WebResponse> {
    const { callPipeline, access } = this.#parts;
    const { peerIp, header } = request;
    const call = newCall(callPipeline.clock, METHOD, peerIp, bearerOf(header('authorization')));
    const session = callPipeline.begin(call, { get: header });
    try {
      await session.authenticate(access);
      const form = await this.#form(request).catch(async (error) => {
        throw await session.refuse(error);
      });
      return await session.serve(this.#work, () => ({ form, userAgent: header('user-agent') ?? '' }));
    } catch (error) {
      return refusal(request, wordedError(error));
    }
  }

  /** The body of the request, if it is a form. */
  async #form(request: WebRequest): Promise<string> {
    if (request.method !== 'POST' || !FORM.test(request.header('content-type') ?? ''))
      throw new ApiError('INVALID_REQUEST', 'POST with application/x-www-form-urlencoded');
    const form = await request.body(MAX_BODY_BYTES).catch(() => {
      throw new ApiError('REQUEST_NOT_RECEIVED', 'the form did not arrive whole');
    });
    if (form === undefined)
      throw new ApiError('MESSAGE_TOO_LARGE', `a form may have at most ${MAX_BODY_BYTES} bytes`);
    return form;
  }
}

/** The password of Basic is the calling key, as for an OAuth client's secret; the user name has no effect. */
function bearerOf(authorization: string | undefined): string | undefined {
  const basic = BASIC.exec(authorization ?? '')?.[1];
  if (basic === undefined) return authorization;
  const pair = Buffer.from(basic, 'base64').toString();
  return `Bearer ${pair.slice(pair.indexOf(':') + 1)}`;
}

function inputOf({ form, userAgent }: Question, origin: CallOrigin): ValidateInput {
  const found = new Violations();
  const values = singleValues(form, () => new ApiError('INVALID_REQUEST', 'a parameter comes twice'));
  refuseUnknown(found, values.keys(), PARAMETERS);
  const secret = values.get('token');
  if (secret === undefined) found.add('token', 'required');
  const clientIp = fields.clientIp(found, 'client_ip', values.get('client_ip') ?? '');
  const requiredScope = fields.requiredScope(found, 'scope', values.get('scope'));
  found.throwIfAny();
  if (origin.callerKeyId === '' && clientIp !== undefined)
    throw new ApiError('CREDENTIAL_MISSING', 'client_ip needs a calling key');
  return {
    secret: secret ?? '',
    requiredScope,
    clientIp,
    userAgent: forAudit(userAgent, fields.BOUNDS.userAgentCharacters),
    requestId: '',
    cost: 1,
    dryRun: false,
    minRevision: 0,
  };
}

/** Any key that does not work is inactive; but a rate-limited caller learns when to retry. */
function responseTo({ decision, key, quota, retryAfterMs }: Verdict, now: number): WebResponse {
  const limits = rateLimitHeaders(quota?.states ?? [], now);
  if (decision === 'RATE_LIMITED' || decision === 'LOCKED_OUT') {
    const wait = retryAfterMs === undefined ? [] : [retryAfter(retryAfterMs)];
    const error = decision === 'RATE_LIMITED' ? 'rate_limited' : 'too_many_failures';
    return webResponse(429, { error }, [...limits, ...wait]);
  }
  if (decision !== 'VALID' || key === undefined) return webResponse(200, { active: false });
  const seconds = (ms: number) => Math.floor(ms / 1000);
  const claims = {
    active: true,
    scope: key.scopes.join(' '),
    client_id: key.id,
    ...(key.ownerId === '' ? {} : { sub: key.ownerId }),
    ...(key.expireTime === undefined ? {} : { exp: seconds(key.expireTime) }),
    iat: seconds(key.createTime),
    token_type: 'Bearer',
  };
  return webResponse(200, claims, limits);
}

/** OAuth errors (RFC 6749 section 5.2). The caller is trusted, so the text may give the reason. */
function refusal({ method }: WebRequest, error: ApiError): WebResponse {
  const told = (status: number, name: string, headers: readonly Header[] = []) =>
    webResponse(status, { error: name, error_description: error.message }, headers);
  switch (error.code) {
    case 'CREDENTIAL_MISSING':
    case 'CREDENTIAL_INVALID':
      return told(401, 'invalid_client', [
        ['www-authenticate', 'Basic realm="apikeyd", Bearer realm="apikeyd"'],
      ]);
    case 'SCOPE_MISSING':
      return told(403, 'insufficient_scope');
    case 'INVALID_REQUEST':
      return method === 'POST'
        ? told(400, 'invalid_request')
        : told(405, 'invalid_request', [['allow', 'POST']]);
    case 'MESSAGE_TOO_LARGE':
      return told(413, 'invalid_request');
    default: {
      const { status, client, body } = failureOf(error);
      return { status, headers: [...client, JSON_TYPE, NO_STORE], body };
    }
  }
}

function webResponse(status: number, body: object, headers: readonly Header[] = []): WebResponse {
  return { status, headers: [...headers, JSON_TYPE, NO_STORE], body: JSON.stringify(body) };
}

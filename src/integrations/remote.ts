import { ApiError } from '../keys/errors.ts';

/** The time limit for a response. */
const TIMEOUT_MS = 10_000;
const MAX_ANSWER_BYTES = 4 << 20;

export interface RemoteResponse {
  readonly status: number;
  readonly headers: Headers;
  /** Undefined when the body is not JSON. */
  readonly json: unknown;
}

export interface RemoteRequest {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: object;
  /** The request creates something, so a lost response leaves its outcome unknown. */
  readonly makes?: true;
  /** Redirect and error statuses that the caller handles itself. */
  readonly reads?: readonly number[];
}

/** Requests to one other system: no redirects, no other host, everything bounded. Its texts are never passed on. */
export class Remote {
  /** The display name. */
  readonly name: string;
  readonly #base: string;
  readonly #timeoutMs: number;

  /** @param base http or https, without a query. @param timeoutMs for tests. */
  constructor(name: string, base: string, timeoutMs = TIMEOUT_MS) {
    this.name = name;
    this.#base = base.replace(/\/+$/, '');
    this.#timeoutMs = timeoutMs;
  }

  /** Any response except redirects and server errors. @throws ApiError */
  async request(
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    { headers = {}, body, makes, reads = [] }: RemoteRequest = {},
  ): Promise<RemoteResponse> {
    const signal = AbortSignal.timeout(this.#timeoutMs);
    let response: RemoteResponse;
    try {
      const fetched = await fetch(`${this.#base}${path}`, {
        method,
        redirect: 'manual',
        signal,
        headers: {
          ...headers,
          accept: 'application/json',
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await textOf(fetched);
      response = { status: fetched.status, headers: fetched.headers, json: parsed(text) };
    } catch (error) {
      if (error instanceof ResponseTooLargeError) throw this.unreadable(error.message);
      const unknown = makes === true && !neverSent(error);
      throw signal.aborted
        ? this.#failed('REMOTE_TIMEOUT', `has not answered in ${this.#timeoutMs / 1000} s`, unknown, error)
        : this.#failed('REMOTE_UNAVAILABLE', unreached(error), unknown, error);
    }
    const { status } = response;
    if (reads.includes(status)) return response;
    if (status >= 300 && status < 400) throw this.unreadable('it redirects, and redirects are not followed');
    if (status === 429) throw this.#tooMany(response.headers);
    if (status >= 500) throw this.failed(response, makes);
    return response;
  }

  /** The other system itself failed. */
  failed({ status }: RemoteResponse, makes?: true): ApiError {
    return this.#failed('REMOTE_UNAVAILABLE', `answered ${status}`, makes === true);
  }

  /** The other system responds, but is not ready. */
  starting(why: string): ApiError {
    return this.#failed('REMOTE_UNAVAILABLE', why, false);
  }

  unauthenticated(what: string): ApiError {
    return new ApiError('REMOTE_UNAUTHENTICATED', `${this.name} does not take ${what}`, this.#facts());
  }

  refused(why: string): ApiError {
    return new ApiError('REMOTE_REFUSED', `${this.name} refused: ${why}`, this.#facts());
  }

  exists(what: string): ApiError {
    return new ApiError('REMOTE_EXISTS', `${this.name} has ${what} already`, this.#facts());
  }

  notFound(what: string): ApiError {
    return new ApiError('REMOTE_NOT_FOUND', `${this.name} has no ${what}`, this.#facts());
  }

  /** The response does not have this system's format. */
  unreadable(why: string): ApiError {
    const text = `the answer of ${this.name} cannot be used: ${why}`;
    return new ApiError('REMOTE_ANSWER_UNREADABLE', text, this.#facts());
  }

  #tooMany(headers: Headers): ApiError {
    const seconds = Number(headers.get('retry-after'));
    const wait = seconds > 0 && seconds <= 86_400 ? seconds : 60;
    const text = `${this.name} takes no more for now: come back in ${wait} s`;
    return new ApiError('REMOTE_RATE_LIMITED', text, { ...this.#facts(), retryAfterMs: wait * 1000 });
  }

  /** No retry is suggested when the outcome is unknown. */
  #failed(
    code: 'REMOTE_TIMEOUT' | 'REMOTE_UNAVAILABLE',
    what: string,
    unknown: boolean,
    cause?: unknown,
  ): ApiError {
    const advice = unknown ? '; it may have done it all the same: see its list' : '';
    return new ApiError(code, `${this.name} ${what}${advice}`, {
      ...this.#facts(),
      cause,
      ...(unknown ? {} : { retryAfterMs: 5_000 }),
    });
  }

  #facts() {
    return { metadata: { system: this.name.toLowerCase() } };
  }
}

/** Failures before a byte of the request left: no connection, or no trust in the server's certificate. */
const NEVER_SENT =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|ERR_TLS_.*|CERT_.*|DEPTH_ZERO_.*|SELF_SIGNED_.*|UNABLE_TO_.*)$/;

function neverSent(error: unknown): boolean {
  return NEVER_SENT.test(causeCode(error));
}

function unreached(error: unknown): string {
  const code = causeCode(error);
  if (/^(ERR_TLS_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code))
    return `has a certificate that is not trusted here (${code})`;
  return code === 'ECONNREFUSED' ? 'cannot be reached: nothing listens there' : 'cannot be reached';
}

/** The code of the error that fetch wraps. */
function causeCode(error: unknown): string {
  return textField(field(error, 'cause'), 'code') ?? '';
}

class ResponseTooLargeError extends Error {}

async function textOf(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) throw new ResponseTooLargeError(`more than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A field of a response of any form. */
export function field(json: unknown, name: string): unknown {
  return typeof json === 'object' && json !== null ? (json as Record<string, unknown>)[name] : undefined;
}

export function textField(json: unknown, name: string): string | undefined {
  const value = field(json, name);
  return typeof value === 'string' ? value : undefined;
}

export function textsField(json: unknown, name: string): readonly string[] | undefined {
  const value = field(json, name);
  return Array.isArray(value) && value.every((each) => typeof each === 'string') ? value : undefined;
}

/** Ids are numbers in Gitea and texts in n8n. */
export function idField(json: unknown): string | undefined {
  const id = field(json, 'id');
  return (typeof id === 'string' && id !== '') || Number.isSafeInteger(id) ? String(id) : undefined;
}

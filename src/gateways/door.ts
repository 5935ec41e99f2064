import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import type { HeaderOf } from './client-key.ts';
import type { Header } from './ratelimit-headers.ts';

/** A request of plain HTTP. */
export interface WebRequest {
  readonly method: string;
  /** The part after the `?`, unchanged; '' when empty. */
  readonly query: string;
  readonly peerIp: string;
  readonly header: HeaderOf;
  /** Reads the body: undefined when it exceeds `mostBytes`; rejects when it does not arrive completely. */
  body(mostBytes: number): Promise<string | undefined>;
}

export interface WebResponse {
  readonly status: number;
  readonly headers: readonly Header[];
  readonly body: string;
}

/** A plain HTTP endpoint that decides about keys. */
export interface Door {
  readonly path: string;
  /** Never rejects. */
  respond(request: WebRequest): MaybePromise<WebResponse>;
}

export const JSON_TYPE: Header = ['content-type', 'application/json'];
/** A response is valid for one request only. */
export const NO_STORE: Header = ['cache-control', 'no-store'];

/** The values by name. @throws the error of `twice` when a name is repeated */
export function singleValues(text: string, twice: (name: string) => ApiError): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(text)) {
    if (values.has(name)) throw twice(name);
    values.set(name, value);
  }
  return values;
}

import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import type { HeaderOf } from './client-key.ts';
import type { Header } from './ratelimit-headers.ts';

/** A request of plain HTTP. */
export interface WebRequest {
  readonly method: string;
  /** What follows the `?`, as it was sent; '' for none. */
  readonly query: string;
  readonly peerIp: string;
  readonly header: HeaderOf;
  /** Reads the body: undefined when it has more bytes than this; rejects when it does not come whole. */
  body(mostBytes: number): Promise<string | undefined>;
}

export interface WebResponse {
  readonly status: number;
  readonly headers: readonly Header[];
  readonly body: string;
}

/** A path of plain HTTP that decides about keys. */
export interface Door {
  readonly path: string;
  /** Never rejects. */
  respond(request: WebRequest): MaybePromise<WebResponse>;
}

export const JSON_TYPE: Header = ['content-type', 'application/json'];
/** What is answered here holds for one request. */
export const NO_STORE: Header = ['cache-control', 'no-store'];

/** One value a name: undefined with a violation for a name that comes twice. @returns the names' values */
export function singleValues(text: string, twice: (name: string) => ApiError): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(text)) {
    if (values.has(name)) throw twice(name);
    values.set(name, value);
  }
  return values;
}

import type { ConnectError } from '@connectrpc/connect';
import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import type { Departure } from '../rpc/incoming-call.ts';
import type { MessageLimits } from '../rpc/method.ts';
import type { RequestFields, ResponseHeaders } from './http2/transport.ts';

/** A method as this transport sees it: bytes in, bytes out. */
export interface UnaryRoute {
  /** Asked when the headers are in: what failureBlock made of a refusal. It costs nothing of the message. */
  refusal(): ResponseHeaders | undefined;
  limits(headers: RequestFields): MessageLimits;
  begin(headers: RequestFields, peerIp: string): UnarySession;
}

/** One call of a route. What rejects does so with a ConnectError, and the call is over then. */
export interface UnarySession {
  /** Before the message is there; undefined when the caller is known at once. */
  authenticate(): MaybePromise<void>;
  /** When the message came long after the caller was known. */
  confirm(): Promise<void>;
  /** Answers the message, which is read when there is a place for the call. Authenticates, if that was not done. */
  respond(message: () => MaybePromise<Uint8Array>, departure: Departure): Promise<Uint8Array>;
  /** The call cannot be served: records it, and gives what to tell. */
  refuse(error: ApiError): Promise<ConnectError>;
}

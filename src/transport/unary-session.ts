import type { ConnectError } from '@connectrpc/connect';
import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import type { Departure } from '../rpc/incoming-call.ts';
import type { MessageLimits } from '../rpc/method.ts';
import type { RequestFields, ResponseHeaders } from './http2/transport.ts';

/** A unary method for this transport: bytes in, bytes out. */
export interface UnaryRoute {
  /** Called when the headers have arrived: a refusal made by failureBlock, before the message costs anything. */
  refusal(): ResponseHeaders | undefined;
  limits(headers: RequestFields): MessageLimits;
  begin(headers: RequestFields, peerIp: string): UnarySession;
}

/** One call of a route. A method that rejects does so with a ConnectError, which ends the call. */
export interface UnarySession {
  /** Authenticates before the message has arrived; undefined when the caller is admitted at once. */
  authenticate(): MaybePromise<void>;
  /** Checks the caller again when the message arrived long after authentication. */
  confirm(): Promise<void>;
  /** Serves the message, which is read once there is a place for the call. Authenticates if that was not done. */
  respond(message: () => MaybePromise<Uint8Array>, departure: Departure): Promise<Uint8Array>;
  /** Records a call that cannot be served, and returns its error. */
  refuse(error: ApiError): Promise<ConnectError>;
}

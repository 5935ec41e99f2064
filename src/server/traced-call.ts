import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import { ActiveCall, type CallPipelineParts } from '../rpc/call-pipeline.ts';
import type { Departure, IncomingCall } from '../rpc/incoming-call.ts';
import type { Access, Work } from '../rpc/method.ts';
import type { Places } from '../rpc/places.ts';

/** Runs work within a trace, so that the requests it makes belong to that trace. */
export type Within = <T>(work: () => T) => T;

/** A traced call: each of its steps runs within its trace. */
export class TracedCall extends ActiveCall {
  readonly #within: Within;

  constructor(parts: CallPipelineParts, call: IncomingCall, places: Places, within: Within) {
    super(parts, call, places);
    this.#within = within;
  }

  override authenticate(access: Access): MaybePromise<void> {
    return this.#within(() => super.authenticate(access));
  }

  override confirm(access: Access): Promise<void> {
    return this.#within(() => super.confirm(access));
  }

  override takePlace(): void {
    this.#within(() => super.takePlace());
  }

  override serve<Q, A>(work: Work<Q, A>, read: () => MaybePromise<Q>, departure?: Departure): Promise<A> {
    return this.#within(() => super.serve(work, read, departure));
  }

  override open(...[method, read]: Parameters<ActiveCall['open']>): ReturnType<ActiveCall['open']> {
    return this.#within(() => super.open(method, read));
  }

  override refuse(error: ApiError): ReturnType<ActiveCall['refuse']> {
    return this.#within(() => super.refuse(error));
  }
}

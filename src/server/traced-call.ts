import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import { ActiveCall, type CallPipelineParts } from '../rpc/call-pipeline.ts';
import type { Departure, IncomingCall } from '../rpc/incoming-call.ts';
import type { Access, Work } from '../rpc/method.ts';
import type { Places } from '../rpc/places.ts';

/** Does work so that what it asks of others belongs to one trace. */
export type Within = <T>(work: () => T) => T;

/** A call that is traced: each of its steps is done within its trace. */
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

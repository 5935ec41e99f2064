import type { DescMessage, DescMethodServerStreaming, Message } from '@bufbuild/protobuf';
import { create } from '@bufbuild/protobuf';
import type { ConnectError } from '@connectrpc/connect';
import { auditEntry } from '../keys/audit-entry.ts';
import { ApiError, type ErrorCode } from '../keys/errors.ts';
import { BOUNDS } from '../keys/key-fields.ts';
import { type MaybePromise, mapMaybe } from '../keys/maybe-promise.ts';
import type { AuditLog, CallOrigin } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { forAudit } from '../keys/text.ts';
import type { Authenticator } from './authenticate.ts';
import { asApiError, codeName, rowOf, toConnectError, wordedError } from './errors.ts';
import { type Caller, type Departure, type IncomingCall, NOBODY, originOf } from './incoming-call.ts';
import type { Access, BoundMethod, OpenStream, Work } from './method.ts';
import { Places } from './places.ts';

/** How soon a stream ends after the calling key stops working. */
const RECHECK_MS = 1_000;

/** One instance serves all refusals. */
export const OVERLOADED = toConnectError(
  new ApiError('SERVER_OVERLOADED', 'too many calls are under way here', { retryAfterMs: 1000 }),
  '',
);

/** Receives the end of each call. */
export interface CallObserver {
  /** @param code a gRPC code's name, `OK` included. */
  finished(method: string, code: string, seconds: number): void;
  /** The reason when a call failed. */
  refused(reason: ErrorCode): void;
  /** An unexpected error; its text holds no secret and may be logged. */
  failed(method: string, error: unknown): void;
}

export interface CallPipelineParts {
  readonly authenticator: Authenticator;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly observer: CallObserver;
  /** Counts a call that is refused because too many are in flight. */
  readonly shed: () => void;
  /** Returns the call if it is traced. Undefined without tracing. */
  readonly traced?: Traced | undefined;
}

/** The headers of a request, by lower-case name. */
export interface HeaderSource {
  get(name: string): string | undefined;
}

export type Traced = (
  parts: CallPipelineParts,
  call: IncomingCall,
  places: Places,
  headers: HeaderSource,
) => ActiveCall | undefined;

/** The path of every call on both mounts: authenticate, authorise, read, handle, record, respond. */
export class CallPipeline {
  readonly #parts: CallPipelineParts;
  readonly #places = new Places();

  constructor(parts: CallPipelineParts) {
    this.#parts = parts;
  }

  get clock(): Clock {
    return this.#parts.clock;
  }

  /** True when too many calls are in flight; this call is then counted as refused, with OVERLOADED. */
  sheds(method: string): boolean {
    if (!this.#places.full) return false;
    const { audit, observer, shed } = this.#parts;
    audit.countRefused(1);
    observer.refused('SERVER_OVERLOADED');
    observer.finished(method, codeName(OVERLOADED.code), 0);
    shed();
    return true;
  }

  /** A response could not be encoded after its event was durable. The cause goes to the log only. */
  encodingFailed(method: string, error: unknown): ConnectError {
    this.#parts.observer.failed(method, error);
    return toConnectError(asApiError(error), '');
  }

  /** Calls whose messages have arrived and that have no response yet. */
  get underWay(): number {
    return this.#places.taken;
  }

  /** The call takes its place once its message has arrived. */
  begin(call: IncomingCall, headers: HeaderSource): ActiveCall {
    const parts = this.#parts;
    return parts.traced?.(parts, call, this.#places, headers) ?? new ActiveCall(parts, call, this.#places);
  }

  /** Resolves when no call is in flight and the responses have had time to leave. */
  idle(): Promise<void> {
    return this.#places.idle();
  }
}

/** One call. Methods that throw throw a ConnectError, after the failure's event is durable. */
export class ActiveCall {
  readonly #parts: CallPipelineParts;
  readonly #call: IncomingCall;
  readonly #places: Places;
  #hasPlace = false;
  #entered = false;
  #caller: Caller = NOBODY;
  #requestId = '';

  constructor(parts: CallPipelineParts, call: IncomingCall, places: Places) {
    this.#parts = parts;
    this.#call = call;
    this.#places = places;
  }

  /** Authenticates and authorises the caller by the headers. Undefined when no wait was needed. */
  authenticate(access: Access): MaybePromise<void> {
    this.#entered = true;
    try {
      const admitted = this.#admit(access);
      return admitted instanceof Promise ? admitted.catch((error) => this.#refused(error)) : undefined;
    } catch (error) {
      return this.#refused(error);
    }
  }

  /** Checks the caller again when the message arrived long after the headers. */
  async confirm(access: Access): Promise<void> {
    if (access === 'OPEN' || this.#caller === NOBODY) return;
    try {
      await this.#parts.authenticator.recheck(this.#call, access.anyOf);
    } catch (error) {
      await this.#refused(error);
    }
  }

  /** Called when the message has arrived. @throws ConnectError when too many calls are in flight */
  takePlace(): void {
    if (this.#hasPlace) return;
    const { full } = this.#places;
    this.#hasPlace = true;
    this.#places.take();
    if (full) throw this.#shed();
  }

  async #refused(error: unknown): Promise<never> {
    throw await this.refuse(asApiError(error));
  }

  #admit(access: Access): MaybePromise<void> {
    if (access === 'OPEN' || (access.anonymous === true && this.#call.authorization === undefined)) return;
    const { authenticator } = this.#parts;
    return mapMaybe(authenticator.identify(this.#call), (key) => {
      this.#caller = { keyId: key.id, scopes: key.scopes };
      return authenticator.authorize(key, access.anyOf);
    });
  }

  /** A whole unary call: caller, message, work, event. Awaits only where necessary. */
  async respond<Q, A>(work: Work<Q, A>, read: () => MaybePromise<Q>, departure?: Departure): Promise<A> {
    this.takePlace();
    if (!this.#entered) {
      const entered = this.authenticate(work.access);
      if (entered !== undefined) await entered;
    }
    return this.serve(work, read, departure);
  }

  /** Refuses before any work is done, so that refusals do not cost throughput. */
  #shed(): ConnectError {
    this.#parts.audit.countRefused(1);
    this.#parts.shed();
    this.#parts.observer.refused('SERVER_OVERLOADED');
    this.#finished(codeName(OVERLOADED.code));
    return OVERLOADED;
  }

  /** Reads the message, handles it, and resolves when the event is durable. */
  async serve<Q, A>(work: Work<Q, A>, read: () => MaybePromise<Q>, departure?: Departure): Promise<A> {
    const { audit, clock } = this.#parts;
    this.takePlace();
    try {
      const given = read();
      const request = given instanceof Promise ? await given : given;
      this.#requestId = requestIdOf(request);
      const origin = this.#origin();
      const result = work.handle(request, origin, this.#call, departure);
      const { message, event } = result instanceof Promise ? await result : result;
      if (event !== undefined) await audit.record(auditEntry(origin, clock, { outcome: 'OK', ...event }));
      this.#finished('OK');
      return message;
    } catch (error) {
      const refusal = await this.refuse(asApiError(error));
      const worded = work.wordError?.(wordedError(refusal));
      if (worded === undefined) throw refusal;
      return worded;
    }
  }

  /**
   * Reads the message and opens the stream; resolves when its event is durable. The stream ends when the calling key
   * stops working. Call `end` when the reader is gone.
   */
  async open(
    { method, implementation }: Extract<BoundMethod, { kind: 'server_streaming' }>,
    read: () => Message,
  ): Promise<{ messages: AsyncGenerator<Message, void>; end: () => void }> {
    const { audit, clock } = this.#parts;
    this.takePlace();
    let opened: OpenStream<object> | undefined;
    try {
      const request = read();
      const origin = this.#origin();
      opened = await implementation.open(request as never, origin, this.#call);
      await audit.record(auditEntry(origin, clock, { outcome: 'OK', ...opened.event }));
    } catch (error) {
      opened?.end();
      return this.#refused(error);
    }
    this.#finished('OK');
    const stream = opened;
    const watch = setInterval(() => void this.#recheck(implementation.access, stream), RECHECK_MS).unref();
    const end = () => {
      clearInterval(watch);
      stream.end();
    };
    return { messages: this.#messages(method, stream, end), end };
  }

  async *#messages(
    method: DescMethodServerStreaming,
    stream: OpenStream<object>,
    end: () => void,
  ): AsyncGenerator<Message, void> {
    try {
      for await (const message of stream.messages)
        yield create(method.output as DescMessage, message as never);
    } catch (error) {
      // The call's event was recorded when the stream opened.
      const apiError = asApiError(error);
      if (apiError.code === 'INTERNAL') this.#parts.observer.failed(this.#call.method, apiError.facts.cause);
      throw toConnectError(apiError, this.#requestId);
    } finally {
      end();
    }
  }

  /** Ends the stream once the calling key is revoked or loses the scope. An unavailable store does not end it. */
  async #recheck(access: Access, stream: OpenStream<object>): Promise<void> {
    if (access === 'OPEN') return;
    try {
      await this.#parts.authenticator.recheck(this.#call, access.anyOf);
    } catch (error) {
      const apiError = asApiError(error);
      if (apiError.code === 'CREDENTIAL_INVALID' || apiError.code === 'SCOPE_MISSING') stream.end(apiError);
    }
  }

  /** Records a refusal and prepares it for sending. */
  async refuse(error: ApiError): Promise<ConnectError> {
    if (!this.#hasPlace) this.#places.beginRefusal();
    const apiError = await this.#recorded(error);
    if (apiError.code === 'INTERNAL') this.#parts.observer.failed(this.#call.method, apiError.facts.cause);
    this.#parts.observer.refused(apiError.code);
    this.#finished(codeName(rowOf(apiError).status));
    return toConnectError(apiError, this.#requestId);
  }

  /** The error to send: this one, or the failure to record its event. */
  async #recorded(error: ApiError): Promise<ApiError> {
    const { audit, clock } = this.#parts;
    if (rowOf(error).unrecorded === true) {
      if (error.facts.audited !== true) audit.countRefused(1);
      return error;
    }
    const outcome = codeName(rowOf(error).status);
    const facts = { outcome, reason: error.code, keyId: error.facts.keyId ?? '' };
    try {
      await audit.record(auditEntry(this.#origin(), clock, facts));
      return error;
    } catch (unrecorded) {
      const refusal = asApiError(unrecorded);
      if (refusal.facts.audited !== true) audit.countRefused(1);
      return refusal;
    }
  }

  #origin(): CallOrigin {
    return originOf(this.#call, this.#caller, this.#requestId);
  }

  #finished(code: string): void {
    const { clock, observer } = this.#parts;
    observer.finished(this.#call.method, code, (clock.monotonic() - this.#call.arriveMonotonic) / 1000);
    if (this.#hasPlace) this.#places.leave();
    else this.#places.endRefusal();
  }
}

function requestIdOf(request: unknown): string {
  const { requestId } = request as { requestId?: unknown };
  return typeof requestId === 'string' ? forAudit(requestId, BOUNDS.textCharacters) : '';
}

import { type Context, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api';
import type { Clock } from '../keys/ports/clock.ts';
import type { Decided } from '../keys/ports/observer.ts';
import type { IncomingCall } from '../rpc/incoming-call.ts';

/** Codes that OpenTelemetry's RPC conventions count as server errors. */
const FAULTS = new Set([
  'UNKNOWN',
  'DEADLINE_EXCEEDED',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
]);

/** The span of one call and those of its waits. Holds no secret, no fingerprint and no address. */
export class CallTrace {
  readonly #tracer: Tracer;
  readonly #clock: Clock;
  readonly #call: IncomingCall;
  readonly #span: Span;
  readonly #inside: Context;
  readonly #decisions: string[] = [];
  #ended = false;

  private constructor(tracer: Tracer, clock: Clock, call: IncomingCall, span: Span, parent: Context) {
    this.#tracer = tracer;
    this.#clock = clock;
    this.#call = call;
    this.#span = span;
    this.#inside = trace.setSpan(parent, span);
  }

  /** Undefined when the call is not sampled. */
  static begin(tracer: Tracer, clock: Clock, call: IncomingCall, parent: Context): CallTrace | undefined {
    const attributes = { 'rpc.system.name': 'grpc', 'rpc.method': call.method };
    const options = { kind: SpanKind.SERVER, startTime: call.arriveTime, attributes };
    const span = tracer.startSpan(call.method, options, parent);
    return span.isRecording() ? new CallTrace(tracer, clock, call, span, parent) : undefined;
  }

  get traceId(): string {
    return this.#span.spanContext().traceId;
  }

  /** Adds a span for a wait of this length that ends now. */
  waited(forWhat: string, ms: number): void {
    if (this.#ended) return;
    const now = this.#now();
    const options = { kind: SpanKind.INTERNAL, startTime: now - ms };
    this.#tracer.startSpan(forWhat, options, this.#inside).end(now);
  }

  decided({ decision, key }: Decided): void {
    this.#decisions.push(decision);
    if (key !== undefined) this.#span.setAttribute('apikeyd.key_id', key.id);
  }

  refused(reason: string): void {
    this.#span.setAttribute('apikeyd.reason', reason);
  }

  /** @param code the name of a gRPC code; a denial is OK */
  ended(code: string): void {
    if (this.#ended) return;
    this.#ended = true;
    const [first, ...more] = this.#decisions;
    if (first !== undefined)
      this.#span.setAttribute('apikeyd.decision', more.length === 0 ? first : this.#decisions);
    this.#span.setAttribute('rpc.response.status_code', code);
    if (code === 'OK') this.#span.setStatus({ code: SpanStatusCode.OK });
    else {
      this.#span.setAttribute('error.type', code);
      if (FAULTS.has(code)) this.#span.setStatus({ code: SpanStatusCode.ERROR });
    }
    this.#span.end(this.#now());
  }

  /** From the arrival on by the monotonic clock, so that no span ends before it begins. */
  #now(): number {
    return this.#call.arriveTime + this.#clock.monotonic() - this.#call.arriveMonotonic;
  }
}

import { AsyncLocalStorage } from 'node:async_hooks';
import { type Context, ROOT_CONTEXT, type Tracer, trace } from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { type Config, parseTraceHeaders } from '../config.ts';
import type { AuditLog } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Observer } from '../keys/ports/observer.ts';
import type { CallObserver, HeaderSource, Traced } from '../rpc/call-pipeline.ts';
import type { StoreObserver } from '../store/store.ts';
import type { Logger } from './telemetry.ts';
import { CallTrace } from './trace.ts';
import { TracedCall } from './traced-call.ts';

/** Failures of a trace receiver are logged at most once in this time. */
const WARN_MS = 60_000;
/** The time limit for sending spans; the shutdown of the process waits at most this long for it. */
const SEND_MS = 3_000;

/** The tracing library's functions for calls. */
export interface Spans {
  readonly tracer: Tracer;
  /** The context of a call's span, from `traceparent` and `tracestate`; undefined when the call is not traced. */
  parentOf(headers: HeaderSource): Context | undefined;
  /** Sends the remaining spans. */
  stop(): Promise<void>;
}

/** Adds calls and their waits to traces. It wraps the parts that it observes and changes none. */
export class Tracing {
  readonly #spans: Spans;
  readonly #clock: Clock;
  readonly #current = new AsyncLocalStorage<CallTrace>();

  constructor(spans: Spans, clock: Clock) {
    this.#spans = spans;
    this.#clock = clock;
  }

  readonly traced: Traced = (parts, call, places, headers) => {
    const { tracer } = this.#spans;
    const parent = this.#spans.parentOf(headers);
    if (parent === undefined) return undefined;
    const callTrace = CallTrace.begin(tracer, this.#clock, call, parent);
    if (callTrace === undefined) return undefined;
    return new TracedCall(parts, call, places, (work) => this.#current.run(callTrace, work));
  };

  ofCalls(inner: CallObserver): CallObserver {
    return {
      finished: (method, code, seconds) => {
        inner.finished(method, code, seconds);
        this.#current.getStore()?.ended(code);
      },
      refused: (reason) => {
        this.#current.getStore()?.refused(reason);
        inner.refused(reason);
      },
      failed: (method, error) => inner.failed(method, error),
    };
  }

  ofDecisions(inner: Observer): Observer {
    return {
      decided: (decided) => {
        this.#current.getStore()?.decided(decided);
        inner.decided(decided);
      },
      rotated: (key, rotation) => inner.rotated(key, rotation),
      lockedOut: (clientIp, forMs) => inner.lockedOut(clientIp, forMs),
      oldCredential: (decided) => inner.oldCredential(decided),
    };
  }

  ofStore(inner: StoreObserver): StoreObserver {
    return {
      took: (operation, ms) => {
        this.#current.getStore()?.waited(`store ${operation}`, ms);
        inner.took(operation, ms);
      },
      // One write serves many calls; each call's own wait is traced in ofAudit.
      wroteEvents: (events, ms) => inner.wroteEvents(events, ms),
    };
  }

  ofAudit(inner: AuditLog): AuditLog {
    return {
      record: (entry) => {
        const callTrace = this.#current.getStore();
        if (callTrace === undefined) return inner.record(entry);
        const begun = this.#clock.monotonic();
        return inner.record(entry).finally(() => callTrace.waited('audit', this.#clock.monotonic() - begun));
      },
      countRefused: (calls) => inner.countRefused(calls),
      list: (filter, page) => inner.list(filter, page),
      count: () => inner.count(),
      countByOutcome: (since) => inner.countByOutcome(since),
    };
  }

  /** A logger that adds the trace id to lines about a traced call. */
  logger(inner: Logger): Logger {
    const log = (line: object) => {
      const callTrace = this.#current.getStore();
      return callTrace === undefined ? { ...line } : { ...line, trace_id: callTrace.traceId };
    };
    return inner.child({}, { formatters: { log } });
  }

  stop(): Promise<void> {
    return this.#spans.stop();
  }
}

/** Starts tracing as configured; only then are this file and OpenTelemetry loaded. @throws ConfigError */
export function openTracing(config: Config, version: string, clock: Clock, logger: Logger): Tracing {
  const headers = parseTraceHeaders(config.OTEL_EXPORTER_OTLP_HEADERS);
  const url = `${config.OTEL_EXPORTER_OTLP_ENDPOINT.replace(/\/+$/, '')}/v1/traces`;
  const exporter = telling(new OTLPTraceExporter({ url, headers, timeoutMillis: SEND_MS }), clock, logger);
  const share = shareOfRoots(config);
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      'service.name': config.OTEL_SERVICE_NAME,
      'service.version': version,
    }),
    sampler: samplerOf(config),
    spanProcessors: [new BatchSpanProcessor({ exporter })],
  });
  const propagator = new W3CTraceContextPropagator();
  const getter = {
    get: (headers: HeaderSource, name: string) => headers.get(name),
    keys: () => [],
  };
  return new Tracing(
    {
      tracer: provider.getTracer('apikeyd', version),
      parentOf: (headers) => {
        const parent = propagator.extract(ROOT_CONTEXT, headers, getter);
        // Drawn here, since a span that is not recorded costs as much as a twentieth of a call.
        const drawn = share === 1 || trace.getSpanContext(parent) !== undefined || Math.random() < share;
        return drawn ? parent : undefined;
      },
      // The exporter has logged its failure already.
      stop: () => provider.shutdown().catch(() => {}),
    },
    clock,
  );
}

/** The share of the calls without a parent that are traced, where `parentOf` draws them; 1 where the sampler decides. */
function shareOfRoots({ OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: share }: Config): number {
  if (name === 'parentbased_always_off') return 0;
  return name === 'parentbased_traceidratio' ? share : 1;
}

function samplerOf({ OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: share }: Config): Sampler {
  if (name === 'always_off') return new AlwaysOffSampler();
  if (name === 'traceidratio') return new TraceIdRatioBasedSampler(share);
  return name === 'always_on'
    ? new AlwaysOnSampler()
    : new ParentBasedSampler({ root: new AlwaysOnSampler() });
}

/** Wraps an exporter, to log failures. */
function telling(inner: SpanExporter, clock: Clock, logger: Logger): SpanExporter {
  let told = Number.NEGATIVE_INFINITY;
  return {
    export: (spans: ReadableSpan[], done) =>
      inner.export(spans, (result) => {
        if (result.code !== 0 && clock.monotonic() - told > WARN_MS) {
          told = clock.monotonic();
          logger.warn({ err: result.error, spans: spans.length }, 'traces cannot be sent and are dropped');
        }
        done(result);
      }),
    shutdown: () => inner.shutdown(),
    forceFlush: () => inner.forceFlush?.() ?? Promise.resolve(),
  };
}

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { DECISIONS, type Decision } from '../keys/check.ts';
import type { ErrorCode } from '../keys/errors.ts';
import { ALERT_TYPES, type AlertType } from '../keys/notices.ts';
import type { CallObserver } from '../rpc/call-pipeline.ts';
import { ERRORS } from '../rpc/errors.ts';
import type { AuditBacklog, StoreObserver, StoreOperation } from '../store/store.ts';
import { CallCounts } from './call-counts.ts';
import { Distribution, type MetricValue } from './distribution.ts';
import type { Space } from './store-space.ts';
import type { AddressName, Logger } from './telemetry.ts';

const WAIT_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const BATCH_EVENTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];
/** The resolution of the event loop's delay, in milliseconds. */
const LOOP_MS = 20;
const LOOP_PERCENTILES = { median: 50, p99: 99, max: 100 };

/** Sources of numbers that other parts count, read at each scrape. */
export interface Sources {
  readonly auditBacklog: () => AuditBacklog;
  readonly callsUnderWay: () => number;
  readonly unfinished: { readonly count: number; readonly bytes: number };
  /** By listener. */
  readonly connections: () => Readonly<Record<string, { readonly open: number; readonly refused: number }>>;
  readonly cache:
    | (() => { readonly hits: number; readonly misses: number; readonly records: number })
    | undefined;
  readonly sharing:
    | { readonly skewMs: number; readonly lease: { readonly holds: boolean; readonly ageMs: number } }
    | undefined;
  /** Seconds until the certificate in use expires. */
  readonly certificateSeconds: (() => number) | undefined;
  readonly space: () => Promise<Space | undefined>;
}

/** Counters as plain numbers, since counting must cost a call next to nothing. */
export class Counts implements CallObserver, StoreObserver {
  readonly calls = new CallCounts();
  readonly decisions: Record<Decision, number>;
  readonly refusals: Record<ErrorCode, number>;
  readonly alerts: Record<AlertType, number>;
  readonly batches = new Distribution(BATCH_EVENTS);
  readonly operations = new Map<StoreOperation, Distribution>();
  readonly droppedLines: () => number;
  defects = 0;
  anchorFailures = 0;
  revocationFailures = 0;
  isServing = false;
  sources: Sources | undefined;
  info: Readonly<Record<string, string>> | undefined;
  #loop: ReturnType<typeof monitorEventLoopDelay> | undefined;
  readonly #logger: Logger;

  /** @param droppedLines lines of the log that could not be written */
  constructor(logger: Logger, droppedLines: () => number = () => 0) {
    this.#logger = logger;
    this.droppedLines = droppedLines;
    this.decisions = noneOf(DECISIONS);
    this.refusals = noneOf(Object.keys(ERRORS) as ErrorCode[]);
    this.alerts = noneOf(ALERT_TYPES);
  }

  /** Sets the sources of the numbers that other parts count. */
  readFrom(sources: Sources): void {
    this.sources = sources;
    this.#loop ??= monitorEventLoopDelay({ resolution: LOOP_MS });
    this.#loop.enable();
  }

  stop(): void {
    this.#loop?.disable();
  }

  decided(decision: Decision): void {
    this.decisions[decision]++;
  }

  finished(method: string, code: string, seconds: number): void {
    this.calls.add(method, code, seconds);
  }

  refused(reason: ErrorCode): void {
    this.refusals[reason]++;
  }

  failed(method: string, error: unknown): void {
    this.#logger.error({ method, err: error }, 'unexpected failure');
  }

  took(operation: StoreOperation, ms: number): void {
    const waits = this.operations.get(operation) ?? new Distribution(WAIT_SECONDS);
    waits.add(ms / 1000);
    this.operations.set(operation, waits);
  }

  wroteEvents(events: number, ms: number): void {
    this.batches.add(events);
    this.took('write_events', ms);
  }

  alerted(type: AlertType): void {
    this.alerts[type]++;
  }

  defectFound(): void {
    this.defects++;
  }

  revocationNoted(ok: boolean): void {
    if (!ok) this.revocationFailures++;
  }

  anchorWritten(ok: boolean): void {
    if (!ok) this.anchorFailures++;
  }

  serving(is: boolean): void {
    this.isServing = is;
  }

  listening(version: string, store: string, addresses: Readonly<Record<AddressName, string>>): void {
    const { GRPC_ADDR: grpc, HTTP_ADDR: http, METRICS_ADDR: metrics } = addresses;
    this.info = { version, store, grpc, http, metrics };
  }

  /** The event loop's delay since the last call of this function. */
  loopLag(): MetricValue[] {
    const loop = this.#loop;
    if (loop === undefined || loop.count === 0) return [];
    const values = Object.entries(LOOP_PERCENTILES).map(([of, percentile]) => {
      const seconds = loop.percentile(percentile) / 1e9 - LOOP_MS / 1000;
      return { labels: { of }, value: Math.max(0, seconds) };
    });
    loop.reset();
    return values;
  }
}

/** Every name with 0 from the start: to Prometheus, a series that first appears as 1 has not increased. */
function noneOf<N extends string>(names: readonly N[]): Record<N, number> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<N, number>;
}

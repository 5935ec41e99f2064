import { type Metric, Registry } from 'prom-client';
import { Counts, type Sources } from './counts.ts';
import type { MetricValue } from './distribution.ts';
import type { Logger } from './telemetry.ts';

interface Row {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly labels?: readonly string[];
  readonly help: string;
  /** Returns undefined or [] when there is no value. */
  readonly read: (
    metrics: Counts,
    name: string,
  ) => number | undefined | readonly MetricValue[] | Promise<number | undefined>;
}

/** THE table of metrics. docs/reference/metrics.md is generated from it. */
const ROWS: readonly Row[] = [
  {
    name: 'apikeyd_log_lines_dropped_total',
    type: 'counter',
    help: 'Log lines that could not be written: the disk is full, or the reader has ended or is stalled.',
    read: (metrics) => metrics.droppedLines(),
  },
  {
    name: 'apikeyd_decisions_total',
    type: 'counter',
    labels: ['decision'],
    help: 'Decisions, by outcome.',
    read: (metrics) => labelled('decision', metrics.decisions),
  },
  {
    name: 'rpc_server_call_duration_seconds',
    type: 'histogram',
    labels: ['rpc_system_name', 'rpc_method', 'rpc_response_status_code'],
    help: "OpenTelemetry's rpc.server.call.duration: from the arrival of a call to its answer, audit included.",
    read: (metrics, name) => metrics.calls.ofConventions(name),
  },
  {
    name: 'apikeyd_calls_total',
    type: 'counter',
    labels: ['method', 'code'],
    help: 'Calls, by method and gRPC code.',
    read: (metrics) => metrics.calls.byMethodAndCode(),
  },
  {
    name: 'apikeyd_call_seconds',
    type: 'histogram',
    labels: ['method'],
    help: 'The same time by method only, in fewer buckets.',
    read: (metrics, name) => metrics.calls.byMethod(name),
  },
  {
    name: 'apikeyd_calls_under_way',
    type: 'gauge',
    help: 'Calls with a complete message and no response yet; beyond 4 096 calls are refused.',
    read: ({ sources }) => sources?.callsUnderWay(),
  },
  {
    name: 'apikeyd_refusals_total',
    type: 'counter',
    labels: ['reason'],
    help: 'Calls that ended with an error, by its reason (docs/reference/errors.md). A denial is no error.',
    read: (metrics) => labelled('reason', metrics.refusals),
  },
  {
    name: 'apikeyd_calls_unrecorded_total',
    type: 'counter',
    help: 'Calls refused without an event of their own, because the log was unavailable or the server overloaded: gap events count them.',
    read: ({ sources }) => sources?.auditBacklog().unrecorded,
  },
  {
    name: 'apikeyd_audit_queue_length',
    type: 'gauge',
    help: 'Events that wait to become durable. Their calls wait for them.',
    read: ({ sources }) => sources?.auditBacklog().waiting,
  },
  {
    name: 'apikeyd_audit_queue_limit',
    type: 'gauge',
    help: 'Limit of waiting events: beyond it calls are refused.',
    read: ({ sources }) => sources?.auditBacklog().limit,
  },
  {
    name: 'apikeyd_audit_batch_events',
    type: 'histogram',
    help: 'Events and other rows in one acknowledged write.',
    read: (metrics, name) => metrics.batches.valuesOf(name, {}),
  },
  {
    name: 'apikeyd_audit_defects_total',
    type: 'counter',
    help: 'Verifications of the audit by this process that found a defect.',
    read: (metrics) => metrics.defects,
  },
  {
    name: 'apikeyd_audit_anchor_failures_total',
    type: 'counter',
    help: 'Times that AUDIT_ANCHOR_FILE could not be written.',
    read: (metrics) => metrics.anchorFailures,
  },
  {
    name: 'apikeyd_revocation_log_failures_total',
    type: 'counter',
    help: 'Times that REVOCATION_LOG could not be written.',
    read: (metrics) => metrics.revocationFailures,
  },
  {
    name: 'apikeyd_store_operation_seconds',
    type: 'histogram',
    labels: ['operation'],
    help: 'Waits for the store, by operation. Reads from memory are not counted. `wait_for_leases`: how long a narrowing change waited for other processes.',
    read: (metrics, name) =>
      [...metrics.operations].flatMap(([operation, waits]) => waits.valuesOf(name, { operation })),
  },
  {
    name: 'apikeyd_store_clock_skew_seconds',
    type: 'gauge',
    help: "How far the store's clock is ahead of this machine's.",
    read: ({ sources }) => (sources?.sharing?.skewMs ?? 0) / 1000,
  },
  {
    name: 'apikeyd_lease_holds',
    type: 'gauge',
    help: '1 while records may be used from memory without asking the store.',
    read: ({ sources }) => ((sources?.sharing?.lease.holds ?? true) ? 1 : 0),
  },
  {
    name: 'apikeyd_lease_age_seconds',
    type: 'gauge',
    help: 'Time since the start of the last successful poll; absent with the embedded store.',
    read: ({ sources }) => inSeconds(sources?.sharing?.lease.ageMs),
  },
  {
    name: 'apikeyd_store_bytes',
    type: 'gauge',
    help: 'Size of the embedded store with its journal; absent on MongoDB.',
    read: async ({ sources }) => (await sources?.space())?.used,
  },
  {
    name: 'apikeyd_store_disk_free_bytes',
    type: 'gauge',
    help: 'Free space on the disk of the embedded store; absent on MongoDB.',
    read: async ({ sources }) => (await sources?.space())?.free,
  },
  {
    name: 'apikeyd_store_disk_bytes',
    type: 'gauge',
    help: 'Size of that disk.',
    read: async ({ sources }) => (await sources?.space())?.size,
  },
  {
    name: 'apikeyd_key_lookups_total',
    type: 'counter',
    labels: ['from'],
    help: 'Look-ups of keys and credentials: answered by `memory`, or by the `store`.',
    read: ({ sources }) => {
      const counts = sources?.cache?.();
      return counts === undefined ? [] : labelled('from', { memory: counts.hits, store: counts.misses });
    },
  },
  {
    name: 'apikeyd_key_records',
    type: 'gauge',
    help: 'Key records kept in memory, of CACHE_MAX_CAPACITY.',
    read: ({ sources }) => sources?.cache?.().records,
  },
  {
    name: 'apikeyd_connections',
    type: 'gauge',
    labels: ['listener'],
    help: 'Open connections, by listener.',
    read: ({ sources }) => ofListeners(sources, 'open'),
  },
  {
    name: 'apikeyd_connections_refused_total',
    type: 'counter',
    labels: ['listener'],
    help: 'Connections refused by the limit per address or in total.',
    read: ({ sources }) => ofListeners(sources, 'refused'),
  },
  {
    name: 'apikeyd_unfinished_messages',
    type: 'gauge',
    help: 'Messages that have arrived only in part.',
    read: ({ sources }) => sources?.unfinished.count,
  },
  {
    name: 'apikeyd_unfinished_message_bytes',
    type: 'gauge',
    help: 'Memory of these messages; beyond 64 MiB the newest are refused.',
    read: ({ sources }) => sources?.unfinished.bytes,
  },
  {
    name: 'apikeyd_event_loop_lag_seconds',
    type: 'gauge',
    labels: ['of'],
    help: 'How late the event loop was since the last scrape: median, p99 and greatest.',
    read: (metrics) => metrics.loopLag(),
  },
  {
    name: 'apikeyd_alerts_total',
    type: 'counter',
    labels: ['type'],
    help: 'Alerts delivered by this process, by type.',
    read: (metrics) => labelled('type', metrics.alerts),
  },
  {
    name: 'apikeyd_tls_certificate_expires_seconds',
    type: 'gauge',
    help: 'Time until the certificate in use expires, negative afterwards; absent without TLS.',
    read: ({ sources }) => sources?.certificateSeconds?.(),
  },
  {
    name: 'process_resident_memory_bytes',
    type: 'gauge',
    help: 'Memory of the process.',
    read: () => process.memoryUsage.rss(),
  },
  {
    name: 'process_cpu_seconds_total',
    type: 'counter',
    help: 'CPU time of the process, in all its threads.',
    read: () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    },
  },
  {
    name: 'process_start_time_seconds',
    type: 'gauge',
    help: 'Start time of the process, in seconds since 1970.',
    read: () => performance.timeOrigin / 1000,
  },
  {
    name: 'apikeyd_serving',
    type: 'gauge',
    help: '1 while decisions can be made.',
    read: (metrics) => (metrics.isServing ? 1 : 0),
  },
  {
    name: 'apikeyd_server_info',
    type: 'gauge',
    labels: ['version', 'store', 'grpc', 'http', 'metrics'],
    help: '1, with the version, the store without its credentials, and the addresses.',
    read: ({ info }) => (info === undefined ? [] : [{ labels: info, value: 1 }]),
  },
];

/** The metrics for Prometheus, built from the counts at each scrape. */
export class Metrics extends Counts {
  readonly registry = new Registry();

  /** @param droppedLines lines of the log that could not be written */
  constructor(logger: Logger, droppedLines?: () => number) {
    super(logger, droppedLines);
    for (const { name, type, help, labels = [], read } of ROWS) {
      const get = async () => {
        const found = await read(this, name);
        const values = typeof found === 'number' ? [{ value: found }] : (found ?? []);
        return { name, type, help, values, aggregator: 'sum' };
      };
      // The registry uses no other fields of a metric.
      this.registry.registerMetric({ name, type, help, labelNames: labels, get } as unknown as Metric);
    }
  }
}

function labelled(label: string, counts: Readonly<Record<string, number>>): MetricValue[] {
  return Object.entries(counts).map(([name, value]) => ({ labels: { [label]: name }, value }));
}

function ofListeners(sources: Sources | undefined, what: 'open' | 'refused'): MetricValue[] {
  return Object.entries(sources?.connections() ?? {}).map(([listener, counts]) => ({
    labels: { listener },
    value: counts[what],
  }));
}

function inSeconds(ms: number | undefined): number | undefined {
  return ms === undefined || !Number.isFinite(ms) ? undefined : ms / 1000;
}

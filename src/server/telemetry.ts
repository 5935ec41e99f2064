import { type DestinationStream, type Logger, pino } from 'pino';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { DECISIONS, type Decision } from '../keys/check.ts';
import type { AlertType } from '../keys/notices.ts';
import type { CallObserver } from '../rpc/call-pipeline.ts';
import type { WatchLogger } from '../watch/watch.ts';

/** The settings that name where to listen. */
export type AddressName = 'GRPC_ADDR' | 'HTTP_ADDR' | 'METRICS_ADDR';

export type { Logger };

const SECRET = /audit_v1_[A-Za-z0-9_-]{22}/g;
const USER_INFO = /(mongodb(?:\+srv)?:\/\/)[^@/\s]*@/g;

/** A text that may be logged: without keys and without passwords of connection strings. */
export function redact(text: string): string {
  return text.replace(SECRET, 'audit_v1_[redacted]').replace(USER_INFO, '$1[redacted]@');
}

/** Structured logs on stderr. Whatever a cause's text holds, no secret leaves. */
export function createLogger(level: string, format: string, to: DestinationStream): Logger {
  const serializers = { err: (error: unknown) => serializeError(error) };
  return pino(
    {
      level,
      base: { pid: process.pid },
      serializers,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    format === 'pretty' ? prettyStream(to) : { write: (line: string) => to.write(redact(line)) },
  );
}

function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return redact(String(error));
  const { name, message, stack, cause } = error;
  const inner = cause === undefined ? {} : { cause: serializeError(cause) };
  return { name, message: redact(message), stack: redact(stack ?? ''), ...inner };
}

/** One line an event: time, level, text, then the rest. */
function prettyStream(to: DestinationStream): DestinationStream {
  return {
    write(line) {
      const { time, level, msg, pid: _pid, ...rest } = JSON.parse(line) as Record<string, unknown>;
      const more = Object.entries(rest).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
      to.write(
        redact(
          `${String(time).slice(11, 23)} ${String(level).toUpperCase().padEnd(5)} ${msg} ${more.join(' ')}`.trimEnd(),
        ),
      );
      to.write('\n');
    },
  };
}

/** What the watch says, at the levels of docs/design/rules.md 4. */
export function watchLogger(logger: Logger, metrics: Metrics): WatchLogger {
  return {
    alert: ({ id, type, keyId, clientIp, text, detail }) => {
      metrics.alerted(type);
      logger.warn({ alert: id, type, key_id: keyId, client_ip: clientIp, ...detail }, text);
    },
    rotationBegun: (key, { id, mode, expireTime }) => {
      const expire_time = new Date(expireTime).toISOString();
      logger.info({ key_id: key.id, rotation: id, mode, expire_time }, 'rotation initiated');
    },
    graceEnded: (key) => logger.info({ key_id: key.id, rotation: key.rotation?.id }, 'rotation grace ended'),
    oldUse: (key_id, client_ip) => logger.debug({ key_id, client_ip }, 'old secret used in its grace'),
    oldRejected: (key_id, client_ip) => logger.warn({ key_id, client_ip }, 'old secret rejected'),
    warn: (text, err) => logger.warn({ err }, text),
  };
}

/** What Prometheus is told. */
export class Metrics implements CallObserver {
  readonly registry = new Registry();
  readonly #decisions: Record<Decision, () => void>;
  readonly #calls: Counter<'method' | 'code'>;
  readonly #seconds: Histogram<'method'>;
  readonly #serving: Gauge;
  readonly #alerts: Counter<'type'>;
  readonly #info: Gauge<'version' | 'store' | 'grpc' | 'http' | 'metrics'>;
  readonly #skew: Gauge;
  readonly #lease: Gauge;
  readonly #anchorFailures: Counter;
  readonly #certificate: Gauge;
  readonly #children = new Map<string, { calls: Counter.Internal; seconds: Histogram.Internal<'method'> }>();
  readonly #logger: Logger;

  /** @param droppedLines lines of the log that could not be written */
  constructor(logger: Logger, droppedLines: () => number = () => 0) {
    this.#logger = logger;
    const registers = [this.registry];
    new Counter({
      name: 'apikeyd_log_lines_dropped_total',
      help: 'Lines of the log that could not be written: a full disk, or a reader that is gone or stalled.',
      registers,
      collect() {
        this.reset();
        this.inc(droppedLines());
      },
    });
    const decisions = new Counter({
      name: 'apikeyd_decisions_total',
      help: 'Decisions, by outcome.',
      labelNames: ['decision'],
      registers,
    });
    const counted = DECISIONS.map((decision) => {
      const child = decisions.labels(decision);
      return [decision, () => child.inc()];
    });
    this.#decisions = Object.fromEntries(counted);
    this.#calls = new Counter({
      name: 'apikeyd_calls_total',
      help: 'Calls, by method and gRPC code.',
      labelNames: ['method', 'code'],
      registers,
    });
    this.#seconds = new Histogram({
      name: 'apikeyd_call_seconds',
      help: 'Time from the arrival of a call to its answer, audit included.',
      labelNames: ['method'],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
      registers,
    });
    this.#alerts = new Counter({
      name: 'apikeyd_alerts_total',
      help: 'Alerts delivered by this process, by type.',
      labelNames: ['type'],
      registers,
    });
    this.#skew = new Gauge({
      name: 'apikeyd_store_clock_skew_seconds',
      help: "How far the store's clock is ahead of this machine's.",
      registers,
    });
    this.#lease = new Gauge({
      name: 'apikeyd_lease_holds',
      help: '1 while records may be used from memory without asking the store.',
      registers,
    });
    this.#anchorFailures = new Counter({
      name: 'apikeyd_audit_anchor_failures_total',
      help: 'Times that AUDIT_ANCHOR_FILE could not be written.',
      registers,
    });
    this.#certificate = new Gauge({
      name: 'apikeyd_tls_certificate_expires_seconds',
      help: 'Until the certificate in use expires, negative once it has; absent without TLS.',
      registers,
    });
    this.#certificate.remove();
    this.#serving = new Gauge({ name: 'apikeyd_serving', help: '1 while decisions can be made.', registers });
    this.#info = new Gauge({
      name: 'apikeyd_server_info',
      help: '1, with the version, the store without its credentials, and the addresses.',
      labelNames: ['version', 'store', 'grpc', 'http', 'metrics'],
      registers,
    });
  }

  decided(decision: Decision): void {
    this.#decisions[decision]();
  }

  finished(method: string, code: string, seconds: number): void {
    const series = `${method} ${code}`;
    let child = this.#children.get(series);
    if (child === undefined) {
      // Looking up labels costs more than counting, so each pair is looked up once; there are few of them.
      child = { calls: this.#calls.labels(method, code), seconds: this.#seconds.labels(method) };
      this.#children.set(series, child);
    }
    child.calls.inc();
    child.seconds.observe(seconds);
  }

  failed(method: string, error: unknown): void {
    this.#logger.error({ method, err: error }, 'unexpected failure');
  }

  alerted(type: AlertType): void {
    this.#alerts.labels(type).inc();
  }

  /** How far the store's clock is ahead of this machine's, and whether records may be used from memory. */
  shared(skewMs: number, leaseHolds: boolean): void {
    this.#skew.set(skewMs / 1000);
    this.#lease.set(leaseHolds ? 1 : 0);
  }

  /** How long the certificate that new connections are shown is still valid. */
  certificateExpires(seconds: number): void {
    this.#certificate.set(seconds);
  }

  anchorWritten(ok: boolean): void {
    if (!ok) this.#anchorFailures.inc();
  }

  serving(is: boolean): void {
    this.#serving.set(is ? 1 : 0);
  }

  listening(
    version: string,
    store: string,
    { GRPC_ADDR: grpc, HTTP_ADDR: http, METRICS_ADDR: metrics }: Record<AddressName, string>,
  ): void {
    this.#info.set({ version, store, grpc, http, metrics }, 1);
  }
}

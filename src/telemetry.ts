import { type DestinationStream, type Logger, pino } from 'pino';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { DECISIONS, type Decision } from './keys/check.ts';
import type { Observer } from './keys/ports.ts';
import type { CallObserver } from './rpc/call-server.ts';

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

/** What Prometheus is told. */
export class Metrics implements Observer, CallObserver {
  readonly registry = new Registry();
  readonly #decisions: Record<Decision, () => void>;
  readonly #calls: Counter<'method' | 'code'>;
  readonly #seconds: Histogram<'method'>;
  readonly #serving: Gauge;
  readonly #children = new Map<string, { calls: Counter.Internal; seconds: Histogram.Internal<'method'> }>();
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
    const registers = [this.registry];
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
    this.#serving = new Gauge({ name: 'apikeyd_serving', help: '1 while decisions can be made.', registers });
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

  serving(is: boolean): void {
    this.#serving.set(is ? 1 : 0);
  }
}

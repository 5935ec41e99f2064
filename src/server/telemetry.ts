import { type DestinationStream, type Logger, pino } from 'pino';
import type { AlertType } from '../keys/notices.ts';
import type { CallObserver } from '../rpc/call-pipeline.ts';
import type { WatchLogger } from '../watch/watch.ts';

/** The settings for addresses to listen on. */
export type AddressName = 'GRPC_ADDR' | 'HTTP_ADDR' | 'METRICS_ADDR';

export type { Logger };

const SECRET = /audit_v1_[A-Za-z0-9_-]{22}/g;
const USER_INFO = /(mongodb(?:\+srv)?:\/\/)[^@/\s]*@/g;

/** A text that is safe to log: without keys and without passwords of connection strings. */
export function redact(text: string): string {
  return text.replace(SECRET, 'audit_v1_[redacted]').replace(USER_INFO, '$1[redacted]@');
}

/** Structured logs on stderr. Secrets are redacted, also in the texts of causes. */
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

/** One line per event: time, level, text, then the other fields. */
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

/** Logs the watch's events, at the levels of docs/design/rules.md 4. */
export function watchLogger(logger: Logger, alerted: (type: AlertType) => void): WatchLogger {
  return {
    alert: ({ id, type, keyId, clientIp, text, detail }) => {
      alerted(type);
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

/** Logs a line for each finished call; only the method comes from the caller. */
export function loggingCalls(inner: CallObserver, logger: Logger): CallObserver {
  return {
    finished: (method, code, seconds) => {
      inner.finished(method, code, seconds);
      logger.info({ method, code, ms: Math.round(seconds * 1e6) / 1e3 }, 'call');
    },
    refused: (reason) => inner.refused(reason),
    failed: (method, error) => inner.failed(method, error),
  };
}

import { existsSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import type { DestinationStream } from 'pino';
import { ownEntry } from '../audit/event.ts';
import { EXIT } from '../cli/client.ts';
import { type Print, Progress, table } from '../cli/output.ts';
import { type Config, readConfig } from '../config.ts';
import { ManageKeys } from '../keys/manage-keys.ts';
import { isSecret } from '../keys/secret.ts';
import { adminKey, localOrigin } from './bootstrap.ts';
import { graceBounds } from './compose.ts';
import { openConfiguredStore } from './configured-store.ts';
import { examine } from './doctor.ts';
import { firstSteps } from './first-steps.ts';
import { LogSink, standardError, writeAtOnce } from './log-sink.ts';
import { restore } from './restore.ts';
import { type Running, serve, systemClock } from './serve.ts';
import { createLogger, type Logger, redact } from './telemetry.ts';

/** The time limit for writing the last lines of the log. */
const LAST_WORDS_MS = 1_000;
/** How long a process that can no longer decide reports that to load balancers before it exits. */
const BROKEN_MS = 2_000;

/** Time between two progress lines. */
const TELL_EVERY_MS = 200;

/** The environment of the process, which only main.ts reads. */
type Environment = Readonly<Record<string, string | undefined>>;

function setUp(
  env: Environment,
  to: (json: boolean) => DestinationStream,
): { config: Config; logger: Logger } {
  const config = readConfig(env);
  // Files written here, with hashes and the admin key, are for this user only.
  process.umask(0o077);
  const format = config.LOG_FORMAT || (process.stderr.isTTY ? 'pretty' : 'json');
  return { config, logger: createLogger(config.LOG_LEVEL, format, to(format === 'json')) };
}

function droppedLine(dropped: number, json: boolean): string {
  const time = new Date().toISOString();
  const msg = 'lines of the log were dropped: it could not be written';
  if (!json) return `${time.slice(11, 23)} WARN  ${msg} dropped=${dropped}\n`;
  return `${JSON.stringify({ level: 'warn', time, pid: process.pid, dropped, msg })}\n`;
}

export async function serveCommand(env: Environment): Promise<void> {
  // After one long wait V8 pretenures the objects of calls: it keeps those of every later call, and each collection of
  // young objects then stops all calls for 12 ms instead of 2.
  setFlagsFromString('--no-allocation-site-pretenuring');
  let sink: LogSink | undefined;
  const { config, logger } = setUp(env, (json) => {
    sink = new LogSink(standardError(), (dropped) => droppedLine(dropped, json));
    return sink;
  });
  const end = (code: number) => void sink?.drained(LAST_WORDS_MS).then(() => process.exit(code));
  process.on('uncaughtException', (err) => {
    logger.fatal({ err }, 'unexpected failure, ending');
    end(EXIT.software);
  });
  const started = serve(config, logger, systemClock, {
    droppedLines: () => sink?.dropped ?? 0,
    broken: (err) => {
      logger.fatal({ err }, 'the store of this process is broken, ending: start it anew');
      // Until then, health checks report the failure.
      setTimeout(() => end(EXIT.software), BROKEN_MS);
    },
  });
  obeySignals(started, logger, () => end(EXIT.ok));
  const running = await started;
  if (process.stderr.isTTY && config.LOG_FORMAT !== 'json')
    sink?.write(firstSteps(config, running, existsSync(config.APIKEYD_KEY_FILE)));
}

/** Handles signals from the beginning of the start, since one may come before the server is ready. */
function obeySignals(started: Promise<Running>, logger: Logger, end: () => void): void {
  const whenStarted = (then: (running: Running) => Promise<void>) => {
    // A failed start ends the process by itself, with its reason.
    void started.then(then, () => {});
  };
  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) return;
    stopping = true;
    logger.info({ signal }, 'finishing the calls under way');
    whenStarted(async (running) => {
      await running.stop();
      logger.info('stopped');
      end();
    });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  // In a terminal SIGHUP means that the terminal closes; without one it asks to read the files again.
  const inTerminal = process.stdin.isTTY || process.stderr.isTTY;
  process.on('SIGHUP', inTerminal ? stop : () => whenStarted((running) => running.readCertificates()));
}

/** A new admin key for an operator with access to the store, when the last key is lost. */
export async function recoverCommand(env: Environment, json: boolean, print: Print): Promise<void> {
  const { config, logger } = setUp(env, () => ({ write: writeAtOnce }));
  const store = await openConfiguredStore(config, systemClock, logger);
  try {
    const { keys } = store;
    const observer = { rotated: () => {} };
    const manageKeys = new ManageKeys({
      keys,
      clock: systemClock,
      graceBounds: graceBounds(config),
      observer,
      mayBeSecret: isSecret,
    });
    const made = await manageKeys.create(
      adminKey('recovered admin', ''),
      localOrigin('apikeyd/recover', systemClock),
    );
    logger.info({ key_id: made.key.id }, 'made an admin key; its secret is on standard output, once');
    print(json ? JSON.stringify({ id: made.key.id, secret: made.secret }, null, 2) : made.secret);
  } finally {
    await store.close();
  }
}

/** Rebuilds the tables behind lists of events from the log. */
export async function reindexCommand(env: Environment, json: boolean, print: Print): Promise<void> {
  const { config, logger } = setUp(env, () => ({ write: writeAtOnce }));
  const store = await openConfiguredStore(config, systemClock, logger);
  try {
    const events = await store.chainLog.rebuildLists();
    const reason = `look-up tables of ${events} events`;
    const time = systemClock.now();
    await store.audit.record(ownEntry({ method: 'apikeyd/reindex', time, outcome: 'OK', reason }));
    print(json ? JSON.stringify({ events }, null, 2) : `built anew for ${events} events`);
  } finally {
    await store.close();
  }
}

interface RestoreOptions {
  readonly json?: boolean;
  readonly withoutLog?: boolean;
}

/** Replaces the store with a backup; reports progress as JSON lines or on a terminal. */
export async function restoreCommand(
  env: Environment,
  file: string,
  { json = false, withoutLog = false }: RestoreOptions,
  print: Print,
): Promise<void> {
  const { config, logger } = setUp(env, () => ({ write: writeAtOnce }));
  const bars = { copying: new Progress('copying'), verifying: new Progress('verifying') };
  let told = Number.NEGATIVE_INFINITY;
  const restored = await restore({
    ...{ config, logger, file, withoutLog, clock: systemClock },
    told: (stage, done, total) => {
      if (!json) return bars[stage].at(done, total);
      const now = systemClock.monotonic();
      if (now - told < TELL_EVERY_MS) return;
      told = now;
      print(JSON.stringify({ stage, done, total }));
    },
  }).finally(() => bars.verifying.end());
  if (json) return print(JSON.stringify(restored));
  const { revision, checkedEvents, lostEvents, keysToCheck, before } = restored;
  const rows = [
    `restored ${file}, up to revision ${revision}: ${checkedEvents} events are intact, ${lostEvents} later ones are lost`,
    keysToCheck === undefined
      ? 'no log of revocations: revoke again by hand what was revoked since the backup'
      : `the next start puts right what was revoked, narrowed or rotated since, of ${keysToCheck} keys`,
    ...(before === undefined
      ? []
      : [`the previous store is kept as ${before}; it holds the hashes of secrets`]),
  ];
  print(rows.join('\n'));
}

/** Exits with 1 when a check fails. */
export async function doctorCommand(env: Environment, json: boolean, print: Print): Promise<void> {
  const examined = await examine(readConfig(env), new Date());
  const findings = examined.map(({ what, ok, text }) => ({ what, ok, text: redact(text) }));
  const rows = findings.map(({ what, ok, text }) => [ok ? 'ok' : 'WRONG', what, text]);
  print(json ? JSON.stringify({ findings }, null, 2) : table(['', 'WHAT', 'FOUND'], rows));
  if (findings.some(({ ok }) => !ok)) process.exitCode = EXIT.denied;
}

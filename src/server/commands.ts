import { writeSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { EXIT } from '../cli/client.ts';
import { type Print, table } from '../cli/output.ts';
import { type Config, readConfig } from '../config.ts';
import { ManageKeys } from '../keys/manage-keys.ts';
import { isSecret } from '../keys/secret.ts';
import { adminKey, localOrigin } from './bootstrap.ts';
import { graceBounds } from './compose.ts';
import { openConfiguredStore } from './configured-store.ts';
import { examine } from './doctor.ts';
import { serve, systemClock } from './serve.ts';
import { createLogger, type Logger, redact } from './telemetry.ts';

/** The environment of the process: main.ts is the only one to read it. */
type Environment = Readonly<Record<string, string | undefined>>;

function setUp(env: Environment): { config: Config; logger: Logger } {
  const config = readConfig(env);
  // What is written here, hashes and the admin key, is for this user only.
  process.umask(0o077);
  const format = config.LOG_FORMAT || (process.stderr.isTTY ? 'pretty' : 'json');
  // Written at once, so that the last words before an end are not lost.
  const logger = createLogger(config.LOG_LEVEL, format, { write: (line) => void writeSync(2, line) });
  return { config, logger };
}

export async function serveCommand(env: Environment): Promise<void> {
  // After one long wait V8 takes what calls are made of for long-lived, keeps that of every later call, and each
  // collection of young objects stops all calls for 12 ms instead of 2.
  setFlagsFromString('--no-allocation-site-pretenuring');
  const { config, logger } = setUp(env);
  process.on('uncaughtException', (err) => {
    logger.fatal({ err }, 'unexpected failure, ending');
    process.exit(EXIT.software);
  });
  const running = await serve(config, logger);
  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) return;
    stopping = true;
    logger.info({ signal }, 'finishing the calls under way');
    void running.stop().then(() => {
      logger.info('stopped');
      process.exit(EXIT.ok);
    });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

/** For whoever can reach the store itself: a new admin key when the last one is lost. */
export async function recoverCommand(env: Environment, json: boolean, print: Print): Promise<void> {
  const { config, logger } = setUp(env);
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

/** Exit 1 when something is not as it should be. */
export async function doctorCommand(env: Environment, json: boolean, print: Print): Promise<void> {
  const examined = await examine(readConfig(env), new Date());
  const findings = examined.map(({ what, ok, text }) => ({ what, ok, text: redact(text) }));
  const rows = findings.map(({ what, ok, text }) => [ok ? 'ok' : 'WRONG', what, text]);
  print(json ? JSON.stringify({ findings }, null, 2) : table(['', 'WHAT', 'FOUND'], rows));
  if (findings.some(({ ok }) => !ok)) process.exitCode = EXIT.denied;
}

#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
import { writeSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import packageJson from '../package.json' with { type: 'json' };
import { adminKey, localOrigin } from './bootstrap.ts';
import { apiKeyCommand } from './cli/api-key.ts';
import { auditCommand } from './cli/audit.ts';
import { CliError, EXIT } from './cli/client.ts';
import { completionCommand } from './cli/completion.ts';
import { giteaCommand, n8nCommand } from './cli/integrations.ts';
import { alertsCommand, anomaliesCommand } from './cli/notices.ts';
import { table } from './cli/output.ts';
import { type Config, ConfigError, readConfig, settingsInUse } from './config.ts';
import { examine } from './doctor.ts';
import { ManageKeys } from './keys/manage-keys.ts';
import { isSecret } from './keys/secret.ts';
import { graceBounds, openConfiguredStore, serve, systemClock } from './serve.ts';
import { StartError } from './store/store.ts';
import { createLogger, type Logger, redact } from './telemetry.ts';

const SOFTWARE_FAILURE = 70;

interface JsonOption {
  readonly json?: boolean;
}

const print = (text: string) => void process.stdout.write(`${text}\n`);

function setUp(): { config: Config; logger: Logger } {
  const config = readConfig(process.env);
  // What is written here, hashes and the admin key, is for this user only.
  process.umask(0o077);
  const format = config.LOG_FORMAT || (process.stderr.isTTY ? 'pretty' : 'json');
  // Written at once, so that the last words before an end are not lost.
  const logger = createLogger(config.LOG_LEVEL, format, { write: (line) => void writeSync(2, line) });
  return { config, logger };
}

async function serveCommand(): Promise<void> {
  const { config, logger } = setUp();
  process.on('uncaughtException', (err) => {
    logger.fatal({ err }, 'unexpected failure, ending');
    process.exit(SOFTWARE_FAILURE);
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
async function recoverCommand({ json }: JsonOption): Promise<void> {
  const { config, logger } = setUp();
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
async function doctorCommand({ json }: JsonOption): Promise<void> {
  const examined = await examine(readConfig(process.env), new Date());
  const findings = examined.map(({ what, ok, text }) => ({ what, ok, text: redact(text) }));
  const rows = findings.map(({ what, ok, text }) => [ok ? 'ok' : 'WRONG', what, text]);
  print(json ? JSON.stringify({ findings }, null, 2) : table(['', 'WHAT', 'FOUND'], rows));
  if (findings.some(({ ok }) => !ok)) process.exitCode = EXIT.denied;
}

/** Each setting with its value, but never a secret one. */
function configCommand({ json }: JsonOption): void {
  const settings = settingsInUse(process.env);
  const rows = settings.map(({ name, value, origin }) => [name, value, origin]);
  print(json ? JSON.stringify({ settings }, null, 2) : table(['SETTING', 'VALUE', 'FROM'], rows));
}

/** One line, and the exit code that says what kind of failure it was. */
function fail(error: unknown): never {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? EXIT.ok : EXIT.usage);
  const known = error instanceof CliError || error instanceof StartError;
  const exitCode = known ? error.exitCode : error instanceof ConfigError ? 78 : SOFTWARE_FAILURE;
  writeSync(
    2,
    `apikeyd: ${exitCode === SOFTWARE_FAILURE ? (error as Error).stack : (error as Error).message}\n`,
  );
  process.exit(exitCode);
}

const program = new Command('apikeyd')
  .description('Tells other backends whether an API key is good.')
  .version(packageJson.version)
  .exitOverride();
program
  .command('serve')
  .description('run the server; settings come from the environment')
  .action(serveCommand);
program
  .command('doctor')
  .description('look for what would stop a server from working here; exit 1 when something would')
  .option('--json', 'print JSON')
  .action(doctorCommand);
program
  .command('config')
  .description('print the settings, their values and where those come from')
  .option('--json', 'print JSON')
  .action(configCommand);
program
  .command('recover')
  .description('make a new admin key, straight on the store')
  .option('--json', 'print JSON')
  .action(recoverCommand);
const defaults = {
  address: process.env.APIKEYD_ADDRESS || '127.0.0.1:50051',
  keyFile: process.env.APIKEYD_KEY_FILE || './data/admin.key',
  owner: process.env.USER || 'unowned',
  gitea: {
    name: process.env.GITEA_USERNAME ?? '',
    password: process.env.GITEA_PASSWORD ?? '',
    oneTimePassword: process.env.GITEA_OTP ?? '',
  },
  n8n: {
    name: process.env.N8N_LOGIN_ID ?? '',
    password: process.env.N8N_PASSWORD ?? '',
    oneTimePassword: process.env.N8N_MFA_CODE ?? '',
  },
};
const exit = (code: number) => {
  process.exitCode = code;
};
const groups = [apiKeyCommand, auditCommand, anomaliesCommand, alertsCommand, giteaCommand, n8nCommand];
for (const command of groups) {
  const group = command(defaults, print, exit);
  program.addCommand(group);
  for (const command of [group, ...group.commands]) command.exitOverride();
}
program.addCommand(completionCommand(program, print));
for (const command of program.commands) command.exitOverride();

try {
  await program.parseAsync();
} catch (error) {
  fail(error);
}

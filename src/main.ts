#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
import { Command, CommanderError } from 'commander';
import packageJson from '../package.json' with { type: 'json' };
import { apiKeyCommand } from './cli/api-key/group.ts';
import { auditCommand } from './cli/audit.ts';
import { backupCommand } from './cli/backup.ts';
import { CliError, EXIT } from './cli/client.ts';
import { completionCommand } from './cli/completion.ts';
import { giteaCommand, n8nCommand } from './cli/integrations.ts';
import { alertsCommand, anomaliesCommand } from './cli/notices.ts';
import { printable, table, tellAll } from './cli/output.ts';
import { ConfigError, settingsInUse } from './config.ts';
import { StartError } from './store/store.ts';

interface JsonOption {
  readonly json?: boolean;
}

interface RestoreOptions extends JsonOption {
  readonly withoutLog?: boolean;
}

const print = (text: string) => void process.stdout.write(`${printable(text)}\n`);

/** Loaded on demand: a client command starts in half the time without it. */
const server = () => import('./server/commands.ts');

/** Prints each setting with its value, except secret values. */
function configCommand({ json }: JsonOption): void {
  const settings = settingsInUse(process.env);
  const rows = settings.map(({ name, value, origin }) => [name, value, origin]);
  print(json ? JSON.stringify({ settings }, null, 2) : table(['SETTING', 'VALUE', 'FROM'], rows));
}

/** Prints one line and exits with the code for the kind of failure. */
function fail(error: unknown): never {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? EXIT.ok : EXIT.usage);
  const known = error instanceof CliError || error instanceof StartError;
  const exitCode = known ? error.exitCode : error instanceof ConfigError ? EXIT.configuration : EXIT.software;
  const text = exitCode === EXIT.software ? (error as Error).stack : (error as Error).message;
  tellAll(`apikeyd: ${printable(text ?? '')}\n`);
  process.exit(exitCode);
}

const program = new Command('apikeyd')
  .description('Tells other backends whether an API key is good.')
  .version(packageJson.version)
  .exitOverride();
program
  .command('serve')
  .description('run the server; settings come from the environment')
  .action(async () => (await server()).serveCommand(process.env));
program
  .command('doctor')
  .description('look for problems that would stop a server from working here; exit 1 when there is one')
  .option('--json', 'print JSON')
  .action(async ({ json = false }: JsonOption) => (await server()).doctorCommand(process.env, json, print));
program
  .command('config')
  .description('print the settings, their values and where those come from')
  .option('--json', 'print JSON')
  .action(configCommand);
program
  .command('recover')
  .description('make a new admin key, directly on the store')
  .option('--json', 'print JSON')
  .action(async ({ json = false }: JsonOption) => (await server()).recoverCommand(process.env, json, print));
program
  .command('restore <file>')
  .description('replace the embedded store with a backup, while no server runs; settings as for serve')
  .option('--json', 'print JSON')
  .option(
    '--without-log',
    'even if REVOCATION_LOG does not reach back to the backup: revoked keys may work again',
  )
  .addHelpText(
    'after',
    '\nExample: apikeyd restore backups/monday.db\nThe previous store is kept beside it. Keys revoked since the backup are revoked again by the next start.',
  )
  .action(async (file: string, options: RestoreOptions) =>
    (await server()).restoreCommand(process.env, file, options, print),
  );
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
const groups = [
  ...[apiKeyCommand, auditCommand, anomaliesCommand, alertsCommand],
  ...[giteaCommand, n8nCommand, backupCommand],
];
for (const command of groups) {
  const group = command(defaults, print, exit);
  program.addCommand(group);
  for (const command of [group, ...group.commands]) command.exitOverride();
}
program.commands
  .find((command) => command.name() === 'audit')
  ?.command('reindex')
  .description('rebuild the tables behind lists of events, directly on the store, while no server runs')
  .option('--json', 'print JSON')
  .exitOverride()
  .action(async ({ json = false }: JsonOption) => (await server()).reindexCommand(process.env, json, print));
program.addCommand(completionCommand(program, print));
for (const command of program.commands) command.exitOverride();

try {
  await program.parseAsync();
} catch (error) {
  fail(error);
}

import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Command } from 'commander';
import {
  CreateGiteaTokenResponseSchema,
  CreateN8nApiKeyResponseSchema,
  DeleteGiteaTokenResponseSchema,
  DeleteN8nApiKeyResponseSchema,
  type GiteaToken,
  ListGiteaTokensResponseSchema,
  ListN8nApiKeysResponseSchema,
  type N8nApiKey,
  RemoteDifferenceSchema,
  VerifyGiteaTokenResponseSchema,
  VerifyN8nApiKeyResponseSchema,
  VerifyResult,
  VerifyResultSchema,
} from '../../gen/apikey/v1/integrations_pb.ts';
import {
  CliError,
  type ClientDefaults,
  type Clients,
  type ConnectionOptions,
  EXIT,
  type RemoteLogin,
  type Runner,
  runner,
  withConnection,
} from './client.ts';
import { json, type Print, state, table, time } from './output.ts';
import { collect, isoTime, linesOfStandardInput, nameOf, secretFrom } from './values.ts';

interface LoginOptions extends ConnectionOptions {
  readonly login: string;
  readonly user?: string;
}

interface CreateOptions extends LoginOptions {
  readonly scope: readonly string[];
  readonly expiresAt?: Date;
}

type RemoteKey = (GiteaToken | N8nApiKey) & { readonly shownName: string };

/** Another system: its terms and its four calls. `json` is the whole response. */
interface RemoteCommands {
  readonly name: string;
  readonly system: string;
  readonly noun: string;
  readonly exampleScope: string;
  /** The prefix of the variables with credentials. */
  readonly prefix: string;
  readonly login: RemoteLogin;
  /** Adds the options that only this system has. */
  options(command: Command, verb: 'create' | 'list' | 'delete'): Command;
  create(
    clients: Clients,
    login: RemoteLogin,
    name: string,
    options: CreateOptions,
  ): Promise<{ id: string | undefined; secret: string; json: string }>;
  list(
    clients: Clients,
    login: RemoteLogin,
    options: LoginOptions,
  ): Promise<{ keys: readonly RemoteKey[]; json: string }>;
  delete(
    clients: Clients,
    login: RemoteLogin,
    key: string,
    options: LoginOptions,
  ): Promise<{ wasMissing: boolean; json: string }>;
  /** @param login undefined when the environment has no credentials */
  verify(
    clients: Clients,
    secret: string,
    login: RemoteLogin | undefined,
  ): Promise<{ result: VerifyResult; explanation: string; json: string }>;
}

/** Longer than other calls, since the other system may be slow. */
const CALL = { timeoutMs: 40_000 };

/** `apikeyd gitea …`: access tokens of Gitea. */
export function giteaCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  const loginOf = ({ name, password, oneTimePassword }: RemoteLogin) => ({
    username: name,
    password,
    otp: oneTimePassword,
  });
  return remoteCommand(defaults, print, exit, {
    name: 'gitea',
    system: 'Gitea',
    noun: 'token',
    exampleScope: 'read:repository',
    prefix: 'GITEA',
    login: defaults.gitea,
    options: (command) =>
      command.option('--user <name>', 'the owner, if it is not the login: only for site admins'),
    async create({ integrations }, login, name, { user = '', scope }) {
      const request = { login: loginOf(login), user, name, scopes: [...scope] };
      const response = await integrations.createGiteaToken(request, CALL);
      return {
        id: response.token?.id,
        secret: response.secret,
        json: json(CreateGiteaTokenResponseSchema, response),
      };
    },
    async list({ integrations }, login, { user = '' }) {
      const response = await integrations.listGiteaTokens({ login: loginOf(login), user }, CALL);
      const keys = response.tokens.map((token) => ({ ...token, shownName: token.name }));
      return { keys, json: json(ListGiteaTokensResponseSchema, response) };
    },
    async delete({ integrations }, login, token, { user = '' }) {
      const response = await integrations.deleteGiteaToken({ login: loginOf(login), user, token }, CALL);
      return { wasMissing: response.wasMissing, json: json(DeleteGiteaTokenResponseSchema, response) };
    },
    async verify({ integrations }, secret) {
      const response = await integrations.verifyGiteaToken({ secret }, CALL);
      const { result, explanation } = response;
      return { result, explanation, json: json(VerifyGiteaTokenResponseSchema, response) };
    },
  });
}

/** `apikeyd n8n …`: API keys of n8n. */
export function n8nCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  const loginOf = ({ name, password, oneTimePassword }: RemoteLogin) => ({
    loginId: name,
    password,
    mfaCode: oneTimePassword,
  });
  return remoteCommand(defaults, print, exit, {
    name: 'n8n',
    system: 'n8n',
    noun: 'API key',
    exampleScope: 'workflow:read',
    prefix: 'N8N',
    login: defaults.n8n,
    options: (command, verb) =>
      verb === 'create'
        ? command.option('--expires-at <time>', 'when it expires, e.g. 2027-01-31T12:00:00Z', isoTime)
        : command,
    async create({ integrations }, login, label, { expiresAt, scope }) {
      const expiry = expiresAt === undefined ? {} : { expireTime: timestampFromDate(expiresAt) };
      const request = { login: loginOf(login), label, scopes: [...scope], ...expiry };
      const response = await integrations.createN8nApiKey(request, CALL);
      return {
        id: response.apiKey?.id,
        secret: response.secret,
        json: json(CreateN8nApiKeyResponseSchema, response),
      };
    },
    async list({ integrations }, login) {
      const response = await integrations.listN8nApiKeys({ login: loginOf(login) }, CALL);
      const keys = response.apiKeys.map((key) => ({ ...key, shownName: key.label }));
      return { keys, json: json(ListN8nApiKeysResponseSchema, response) };
    },
    async delete({ integrations }, login, id) {
      const response = await integrations.deleteN8nApiKey({ login: loginOf(login), id }, CALL);
      return { wasMissing: response.wasMissing, json: json(DeleteN8nApiKeyResponseSchema, response) };
    },
    async verify({ integrations }, secret, login) {
      const request = login === undefined ? { secret } : { secret, login: loginOf(login) };
      const response = await integrations.verifyN8nApiKey(request, CALL);
      const { result, explanation } = response;
      return { result, explanation, json: json(VerifyN8nApiKeyResponseSchema, response) };
    },
  });
}

function remoteCommand(
  defaults: ClientDefaults,
  print: Print,
  exit: (code: number) => void,
  remote: RemoteCommands,
): Command {
  const { name, system, noun, exampleScope, prefix } = remote;
  const group = new Command(name).description(`create, list, delete and verify ${noun}s of ${system}`);
  const run = runner(exit);
  const command = (verb: 'create' | 'list' | 'delete', argument = '') =>
    remote.options(
      withConnection(group.command(`${verb}${argument}`), defaults).option(
        '--login <name>',
        `login name in ${system}; the password is ${prefix}_PASSWORD, or the first line of standard input`,
        remote.login.name,
      ),
      verb,
    );

  command('create', ' <name>')
    .description(`create one; its secret is printed once`)
    .requiredOption('--scope <scope>', `e.g. ${exampleScope}; may be repeated`, collect(String))
    .option('--quiet', 'print the secret only')
    .addHelpText(
      'after',
      `\nExample: apikeyd ${name} create ci --scope ${exampleScope} --login alice < password.txt`,
    )
    .action(
      run(async (clients, options: CreateOptions, called) => {
        const made = await remote.create(clients, credentials(options, remote), called, options);
        const shown = options.quiet
          ? made.secret
          : `id      ${made.id}\nsecret  ${made.secret}\n\nThe secret is not shown again.`;
        print(options.json ? made.json : shown);
        return EXIT.ok;
      }),
    );
  command('list')
    .description(`list the ${noun}s of the user, compared with those created through apikeyd`)
    .action(
      run(async (clients, options: LoginOptions) => {
        const listed = await remote.list(clients, credentials(options, remote), options);
        print(options.json ? listed.json : tableOf(listed.keys));
        return EXIT.ok;
      }),
    );
  command('delete', ' <id>')
    .description(`delete one, by its id or its ${name === 'gitea' ? 'name' : 'label'}`)
    .action(
      run(async (clients, options: LoginOptions, id) => {
        const deleted = await remote.delete(clients, credentials(options, remote), id, options);
        const shown = deleted.wasMissing
          ? `${id} is not in the list of ${system} any more: only marked as deleted here`
          : `deleted ${id}`;
        print(options.json ? deleted.json : shown);
        return EXIT.ok;
      }),
    );
  addVerify(withConnection(group.command('verify <->'), defaults), remote, print, run);
  return group;
}

function addVerify(command: Command, remote: RemoteCommands, print: Print, run: Runner): void {
  command.description(`ask ${remote.system} whether the ${remote.noun} on standard input works`).action(
    run(async (clients, options: ConnectionOptions, argument) => {
      // Standard input holds the secret, so the credentials can come only from the environment.
      const { name: login, password } = remote.login;
      const asking = login === '' || password === '' ? undefined : remote.login;
      const verified = await remote.verify(clients, secretFrom(argument), asking);
      const { result, explanation } = verified;
      const shown = state(nameOf(VerifyResultSchema, result));
      print(options.json ? verified.json : explanation === '' ? shown : `${shown}: ${explanation}`);
      return result === VerifyResult.ALIVE ? EXIT.ok : EXIT.denied;
    }),
  );
}

/** The password comes from the environment or standard input, where a second line is the one-time password. */
function credentials({ login }: LoginOptions, { login: given, prefix, system }: RemoteCommands): RemoteLogin {
  if (login === '') throw new CliError(EXIT.usage, `name your login in ${system} with --login`);
  if (given.password !== '') return { ...given, name: login };
  if (process.stdin.isTTY)
    throw new CliError(EXIT.usage, `give the password on standard input, or in ${prefix}_PASSWORD`);
  const [password = '', oneTimePassword = ''] = linesOfStandardInput();
  if (password === '')
    throw new CliError(EXIT.usage, `no password: standard input and ${prefix}_PASSWORD are empty`);
  return { name: login, password, oneTimePassword: oneTimePassword || given.oneTimePassword };
}

function tableOf(keys: readonly RemoteKey[]): string {
  const rows = keys.map((key) => [
    key.id,
    key.shownName,
    key.difference === 0 ? 'both' : nameOf(RemoteDifferenceSchema, key.difference),
    time(key.createTime),
    key.lastVerifyResult === 0 ? '-' : nameOf(VerifyResultSchema, key.lastVerifyResult),
    key.lastEight === '' ? '-' : `…${key.lastEight}`,
    key.scopes.join(' '),
  ]);
  return table(['ID', 'NAME', 'WHERE', 'MADE', 'VERIFIED', 'SECRET', 'SCOPES'], rows);
}

import { readFileSync } from 'node:fs';
import { durationMs } from '@bufbuild/protobuf/wkt';
import { type Client, Code, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import type { Command } from 'commander';
import { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../../gen/apikey/v1/integrations_pb.ts';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { nextStep } from './next-step.ts';
import { plain } from './output.ts';

const CALL_MS = 10_000;

export const EXIT = { ok: 0, denied: 1, usage: 2, unreachable: 69, software: 70, configuration: 78 } as const;

/** A failure with its exit code; the text also says what to do next. */
export class CliError extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, text: string) {
    super(text);
    this.exitCode = exitCode;
  }
}

export interface Clients {
  readonly auth: Client<typeof ApiKeyAuth>;
  readonly admin: Client<typeof ApiKeyAdmin>;
  readonly integrations: Client<typeof ApiKeyIntegrations>;
}

export interface ConnectionOptions {
  readonly address?: string;
  readonly keyFile?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export interface ClientDefaults {
  readonly address: string;
  readonly keyFile: string;
  /** The owner of new keys. */
  readonly owner: string;
  readonly gitea: RemoteLogin;
  readonly n8n: RemoteLogin;
}

/** Credentials of another system, from the environment; '' when a variable is unset. */
export interface RemoteLogin {
  readonly name: string;
  readonly password: string;
  readonly oneTimePassword: string;
}

/** The options that every client command has. */
export function withConnection(command: Command, defaults: ClientDefaults): Command {
  return command
    .option('--address <host:port>', 'the server; with https:// in front, TLS is used', defaults.address)
    .option('--key-file <path>', 'file that holds the calling key', defaults.keyFile)
    .option('--json', 'print JSON');
}

export function connect({ address = '', keyFile = '' }: ConnectionOptions): Clients {
  const credential = readKey(keyFile);
  const baseUrl = /^https?:\/\//.test(address) ? address : `http://${address}`;
  const transport: Transport = createGrpcTransport({
    baseUrl,
    defaultTimeoutMs: CALL_MS,
    interceptors: [
      (next) => (request) => {
        request.header.set('authorization', `Bearer ${credential}`);
        return next(request);
      },
    ],
  });
  return {
    auth: createClient(ApiKeyAuth, transport),
    admin: createClient(ApiKeyAdmin, transport),
    integrations: createClient(ApiKeyIntegrations, transport),
  };
}

function readKey(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    throw new CliError(
      EXIT.denied,
      `cannot read the calling key from ${file}: name its file with --key-file`,
    );
  }
}

/** Turns a failed call into a text for the person at the terminal. */
export function explain(error: unknown, { address = '' }: ConnectionOptions): CliError {
  if (error instanceof CliError) return error;
  const failure = ConnectError.from(error);
  const [info] = failure.findDetails(ErrorInfoSchema);
  if (info === undefined && failure.code === Code.Unavailable) {
    return new CliError(
      EXIT.unreachable,
      `no server answers at ${address}: start it with "apikeyd serve", or name it with --address`,
    );
  }
  const violations = failure.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  const lines = violations.map(({ field, description }) => `  ${field}: ${description}`);
  const reason = info === undefined ? Code[failure.code] : info.reason;
  const step = info === undefined ? '' : nextStep(info.reason, info.metadata);
  const next = step || waitOf(failure);
  const told = [
    `${failure.rawMessage} (${reason})`,
    ...(lines.length > 1 ? lines : []),
    ...(next === '' ? [] : [`next: ${next}`]),
  ];
  return new CliError(EXIT.denied, told.map(plain).join('\n'));
}

/** The wait that the error of a limit asks for. */
function waitOf(failure: ConnectError): string {
  const delay = failure.findDetails(RetryInfoSchema)[0]?.retryDelay;
  if (failure.code !== Code.ResourceExhausted || delay === undefined) return '';
  return `try again in ${Math.max(1, Math.ceil(durationMs(delay) / 1000))} s`;
}

/** Node replaces bytes of an argument that are not UTF-8 by U+FFFD, so the text would differ from the one typed. */
function refuseReplaced(given: object): void {
  const wrong = Object.entries(given).find(([, value]) => String(value).includes('\ufffd'));
  if (wrong !== undefined) throw new CliError(EXIT.usage, `${wrong[0]}: is not UTF-8, or holds U+FFFD`);
}

/** Creates the action of a command. */
export type Runner = ReturnType<typeof runner>;

/** Runs commands: connects, acts, reports the exit code, and explains failures. */
export function runner(exit: (code: number) => void) {
  return <O extends ConnectionOptions, A = string>(
    action: (clients: Clients, options: O, argument: A) => Promise<number>,
  ) =>
    async (...args: unknown[]) => {
      const options = (args.at(-1) as Command).opts<O>();
      try {
        refuseReplaced({ ...options, argument: args.slice(0, -2) });
        exit(await action(connect(options), options, args[0] as A));
      } catch (error) {
        throw explain(error, options);
      }
    };
}

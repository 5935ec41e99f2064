import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Command } from 'commander';
import {
  CreateKeyResponseSchema,
  ListKeysResponseSchema,
  RevokeKeyResponseSchema,
} from '../../gen/apikey/v1/admin_pb.ts';
import { DecisionSchema, ValidateKeyResponseSchema } from '../../gen/apikey/v1/auth_pb.ts';
import {
  type Key,
  KeyStatusSchema,
  KeyType,
  KeyTypeSchema,
  RevokeReason,
  RevokeReasonSchema,
} from '../../gen/apikey/v1/key_pb.ts';
import { addMoreKeyCommands } from './api-key-more.ts';
import { createFromFile, type FileOptions, importFile } from './bulk.ts';
import {
  CliError,
  type ClientDefaults,
  type Clients,
  type ConnectionOptions,
  EXIT,
  runner,
  withConnection,
} from './client.ts';
import { json, type Print, state, table, time } from './output.ts';
import { describeRotate, type RotateOptions, rotate } from './rotate.ts';
import {
  collect,
  isoTime,
  nameOf,
  pair,
  rateLimit,
  seconds,
  secretFrom,
  toRateLimits,
  wholeNumber,
  word,
} from './values.ts';

interface CreateOptions extends ConnectionOptions {
  readonly keyType?: KeyType;
  readonly scope?: readonly string[];
  readonly owner: string;
  readonly from?: string;
  readonly ttl?: number;
  readonly expiresAt?: Date;
  readonly rateLimit?: readonly ReturnType<typeof rateLimit>[];
  readonly bucket?: string;
  readonly allowIp?: readonly string[];
  readonly metadata?: readonly (readonly [string, string])[];
  readonly requestId?: string;
  readonly rotateEvery?: number;
}

interface ListOptions extends ConnectionOptions {
  readonly owner?: string;
  readonly keyType?: KeyType;
  readonly active?: boolean;
  readonly limit: number;
}

interface ValidateOptions extends ConnectionOptions {
  readonly scope?: string;
  readonly clientIp?: string;
  readonly cost?: number;
  readonly dryRun?: boolean;
}

interface RevokeOptions extends ConnectionOptions {
  readonly reason: RevokeReason;
  readonly note?: string;
}

const CREATE_EXAMPLES = `
Examples:
  apikeyd api-key create ci --key-type service --scope traces:read --rate-limit 100/60s
  apikeyd api-key create --from keys.csv > secrets.csv

The first line of a CSV file names its columns: name, owner, type, scopes, limits, bucket, expires, addresses,
metadata, rotate_every. Blanks or semicolons are between the items of one column:
  name,type,scopes,limits
  ci,service,traces:read traces:write,100/60s burst=10/1s`;

const IMPORT_EXAMPLE = `
Example: apikeyd api-key import keys.csv

A file as of "api-key create --from" with one column more, hash: the SHA-256 of the secret, 64 hex digits. The whole
file is checked before anything is written. Secrets of another shape than audit_v1_… work where the server has
ACCEPT_IMPORTED_SHAPES=true.`;

/** `apikeyd api-key …`: keys, over gRPC. `exit` is told the exit code of a command that has run. */
export function apiKeyCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  const group = new Command('api-key').description('make, look at, change and end keys');
  const run = runner(exit);

  withConnection(group.command('create [name]'), defaults)
    .description('make a key; its secret is printed once')
    .option('--key-type <type>', 'system, user, service, integration or emergency', word(KeyTypeSchema))
    .option('--scope <scope>', 'what it grants, e.g. traces:read; may be repeated', collect(String))
    .option('--owner <id>', 'who it belongs to', defaults.owner)
    .option('--ttl <days>', 'days until it expires', wholeNumber)
    .option('--expires-at <time>', 'when it expires, e.g. 2027-01-31T12:00:00Z', isoTime)
    .option('--rate-limit <limit>', 'e.g. 100/60s or burst=10/1s; may be repeated', collect(rateLimit))
    .option('--bucket <name>', 'share counters with the keys of this bucket')
    .option('--allow-ip <cidr>', 'only from there; may be repeated', collect(String))
    .option('--metadata <name=value>', 'of your own; may be repeated', collect(pair))
    .option('--rotate-every <length>', 'raise an alert when its secret is older, e.g. 90d', seconds)
    .option('--request-id <id>', 'makes a repetition safe')
    .option('--from <file>', 'instead: one key a line of CSV or JSON lines, see below; - is standard input')
    .option('--quiet', 'print the secret only')
    .addHelpText('after', CREATE_EXAMPLES)
    .action(
      run((clients, options: CreateOptions, name: string | undefined) =>
        options.from === undefined
          ? create(clients, options, name, print)
          : createFromFile(clients, onlyFile(options, name), options.from, print),
      ),
    );

  withConnection(group.command('import <file>'), defaults)
    .description('take keys over from another system, by the SHA-256 of their secrets; can be repeated')
    .option('--owner <id>', 'who keys belong to whose line names nobody', defaults.owner)
    .addHelpText('after', IMPORT_EXAMPLE)
    .action(run((clients, options: FileOptions, file) => importFile(clients, options, file, print)));

  withConnection(group.command('list'), defaults)
    .description('list keys, oldest first')
    .option('--owner <id>', 'only of this owner')
    .option('--key-type <type>', 'only of this type', word(KeyTypeSchema))
    .option('--active', 'only those that are active')
    .option('--limit <n>', 'at most so many', wholeNumber, 1000)
    .action(run((clients, options: ListOptions) => list(clients, options, print)));

  withConnection(group.command('validate <->'), defaults)
    .description('ask for a decision about the key on standard input')
    .option('--scope <scope>', 'the scope that is needed')
    .option('--client-ip <address>', "the end client's address")
    .option('--cost <n>', 'what it takes from the limits', wholeNumber)
    .option('--dry-run', 'every reason, consuming nothing')
    .addHelpText('after', '\nExample: apikeyd api-key validate - --scope traces:read < key.txt')
    .action(
      run((clients, options: ValidateOptions, argument) => validate(clients, options, argument, print)),
    );

  describeRotate(withConnection(group.command('rotate <id>'), defaults)).action(
    run((clients, options: RotateOptions, id) => rotate(clients, options, id, print)),
  );

  withConnection(group.command('revoke <id>'), defaults)
    .description('end a key for good, everywhere')
    .option(
      '--reason <reason>',
      'key-compromise, superseded, …',
      word(RevokeReasonSchema),
      RevokeReason.CESSATION_OF_OPERATION,
    )
    .option('--note <text>', 'kept with the key')
    .action(run((clients, options: RevokeOptions, id) => revoke(clients, options, id, print)));

  addMoreKeyCommands(group, defaults, run, print);
  return group;
}

const BESIDE_A_FILE = new Set(['from', 'owner', 'json', 'quiet', 'address', 'keyFile']);

/** A file says all of its keys: what else is given would be lost. */
function onlyFile(options: CreateOptions, name: string | undefined): CreateOptions {
  if (name !== undefined || Object.keys(options).some((option) => !BESIDE_A_FILE.has(option)))
    throw new CliError(EXIT.usage, '--from says all about the keys: no name and no other options beside it');
  return options;
}

async function create(
  { admin }: Clients,
  options: CreateOptions,
  name: string | undefined,
  print: Print,
): Promise<number> {
  const { ttl, expiresAt, keyType, scope } = options;
  if (name === undefined || keyType === undefined || scope === undefined)
    throw new CliError(EXIT.usage, 'a key needs a name, --key-type and --scope; or make many with --from');
  const answer = await admin.createKey({
    name,
    ownerId: options.owner,
    keyType,
    scopes: [...scope],
    rateLimits: toRateLimits(options.rateLimit ?? []),
    rateLimitBucket: options.bucket ?? '',
    ipAllowlist: [...(options.allowIp ?? [])],
    metadata: Object.fromEntries(options.metadata ?? []),
    requestId: options.requestId ?? '',
    ...(options.rotateEvery === undefined ? {} : { rotateEvery: { seconds: BigInt(options.rotateEvery) } }),
    ...(ttl === undefined
      ? {}
      : { expiry: { case: 'ttl', value: { seconds: BigInt(ttl) * 86_400n } } as const }),
    ...(expiresAt === undefined
      ? {}
      : { expiry: { case: 'expireTime', value: timestampFromDate(expiresAt) } as const }),
  });
  if (options.json) print(json(CreateKeyResponseSchema, answer));
  else if (options.quiet) print(answer.secret);
  else print(`id      ${answer.key?.id}\nsecret  ${answer.secret}\n\nThe secret is not shown again.`);
  return EXIT.ok;
}

async function list({ admin }: Clients, options: ListOptions, print: Print): Promise<number> {
  const keys: Key[] = [];
  let pageToken = '';
  do {
    const page = await admin.listKeys({
      ownerId: options.owner ?? '',
      keyType: options.keyType ?? KeyType.UNSPECIFIED,
      activeOnly: options.active ?? false,
      pageSize: Math.min(1000, options.limit - keys.length),
      pageToken,
    });
    keys.push(...page.keys);
    pageToken = page.nextPageToken;
  } while (pageToken !== '' && keys.length < options.limit);
  if (options.json) {
    print(
      json(ListKeysResponseSchema, {
        $typeName: 'apikey.v1.ListKeysResponse',
        keys,
        nextPageToken: pageToken,
      }),
    );
    return EXIT.ok;
  }
  const rows = keys.map((key) => [
    key.id,
    nameOf(KeyStatusSchema, key.status),
    nameOf(KeyTypeSchema, key.keyType),
    key.ownerId,
    key.name,
    time(key.expireTime),
    key.scopes.join(' '),
  ]);
  print(table(['ID', 'STATUS', 'TYPE', 'OWNER', 'NAME', 'EXPIRES', 'SCOPES'], rows));
  return EXIT.ok;
}

async function validate(
  { auth }: Clients,
  options: ValidateOptions,
  argument: string,
  print: Print,
): Promise<number> {
  const answer = await auth.validateKey({
    key: secretFrom(argument),
    clientIp: options.clientIp ?? '',
    cost: BigInt(options.cost ?? 0),
    dryRun: options.dryRun ?? false,
    ...(options.scope === undefined ? {} : { requiredScope: options.scope }),
  });
  const limits = answer.rateLimits.map(
    ({ name, remaining, limit }) => `  ${name}: ${remaining} of ${limit} left`,
  );
  const reasons = answer.reasons.map((reason) => nameOf(DecisionSchema, reason)).join(', ');
  const decision = nameOf(DecisionSchema, answer.decision);
  const lines = [
    answer.reasons.length > 1 ? `${state(decision)} (${reasons})` : state(decision),
    answer.keyId,
    ...limits,
  ].filter(Boolean);
  print(options.json ? json(ValidateKeyResponseSchema, answer) : lines.join('\n'));
  return answer.valid ? EXIT.ok : EXIT.denied;
}

async function revoke({ admin }: Clients, options: RevokeOptions, id: string, print: Print): Promise<number> {
  const answer = await admin.revokeKey({ id, reason: options.reason, note: options.note ?? '' });
  if (options.json) print(json(RevokeKeyResponseSchema, answer));
  else print(`revoked ${id} at ${time(answer.key?.revokeTime)}, revision ${answer.revision}`);
  return EXIT.ok;
}

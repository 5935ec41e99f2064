import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { CreateKeyResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { type KeyType, KeyTypeSchema } from '../../../gen/apikey/v1/key_pb.ts';
import { CliError, type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print } from '../output.ts';
import {
  collect,
  collectPairs,
  isoTime,
  rateLimit,
  seconds,
  toRateLimits,
  wholeNumber,
  word,
} from '../values.ts';
import { createFromFile } from './create-from-file.ts';
import { addVerb, type VerbContext } from './verb.ts';

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
  readonly localValidation?: boolean;
}

const CREATE_EXAMPLES = `
Examples:
  apikeyd api-key create ci --key-type service --scope traces:read --rate-limit 100/60s
  apikeyd api-key create --from keys.csv > secrets.csv

The first line of a CSV file names its columns: name, owner, type, scopes, limits, bucket, expires, addresses,
metadata, rotate_every, local_validation. Blanks or semicolons are between the items of one column:
  name,type,scopes,limits
  ci,service,traces:read traces:write,100/60s burst=10/1s`;

/** `api-key create`: one key, or many with `--from`. */
export function addCreate(context: VerbContext): void {
  addVerb(context, 'create [name]')
    .description('create a key; its secret is printed once')
    .option('--key-type <type>', 'system, user, service, integration or emergency', word(KeyTypeSchema))
    .option('--scope <scope>', 'scope to grant, e.g. traces:read; may be repeated', collect(String))
    .option('--owner <id>', 'owner of the key', context.defaults.owner)
    .option('--ttl <days>', 'days until it expires', wholeNumber)
    .option('--expires-at <time>', 'when it expires, e.g. 2027-01-31T12:00:00Z', isoTime)
    .option('--rate-limit <limit>', 'e.g. 100/60s or burst=10/1s; may be repeated', collect(rateLimit))
    .option('--bucket <name>', 'share counters with the keys of this bucket')
    .option('--allow-ip <cidr>', 'address range it may be used from; may be repeated', collect(String))
    .option('--metadata <name=value>', 'metadata of your own; may be repeated', collectPairs)
    .option('--rotate-every <length>', 'raise an alert when its secret is older than this, e.g. 90d', seconds)
    .option('--local-validation', 'guards that hold a lease may decide about it by themselves')
    .option(
      '--request-id <id>',
      'an id of your choice: a second call with it within 24 h creates no second key',
    )
    .option(
      '--from <file>',
      'create many keys: CSV or JSON lines, one key per line, see below; - is standard input',
    )
    .option('--quiet', 'print the secret only')
    .addHelpText('after', CREATE_EXAMPLES)
    .action(
      context.run((clients, options: CreateOptions, name: string | undefined) =>
        options.from === undefined
          ? create(clients, options, name, context.print)
          : createFromFile(clients, onlyFile(options, name), options.from, context.print),
      ),
    );
}

const BESIDE_A_FILE = new Set(['from', 'owner', 'json', 'quiet', 'address', 'keyFile']);

/** Refuses a name and other options beside --from, which would be ignored: the file describes the keys. */
function onlyFile(options: CreateOptions, name: string | undefined): CreateOptions {
  if (name !== undefined || Object.keys(options).some((option) => !BESIDE_A_FILE.has(option)))
    throw new CliError(
      EXIT.usage,
      '--from takes everything from the file: give no name and no other options with it',
    );
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
    throw new CliError(EXIT.usage, 'a key needs a name, --key-type and --scope; or create many with --from');
  const response = await admin.createKey({
    name,
    ownerId: options.owner,
    keyType,
    scopes: [...scope],
    rateLimits: toRateLimits(options.rateLimit ?? []),
    rateLimitBucket: options.bucket ?? '',
    ipAllowlist: [...(options.allowIp ?? [])],
    metadata: Object.fromEntries(options.metadata ?? []),
    requestId: options.requestId ?? '',
    localValidation: options.localValidation === true,
    ...(options.rotateEvery === undefined ? {} : { rotateEvery: { seconds: BigInt(options.rotateEvery) } }),
    ...(ttl === undefined
      ? {}
      : { expiry: { case: 'ttl', value: { seconds: BigInt(ttl) * 86_400n } } as const }),
    ...(expiresAt === undefined
      ? {}
      : { expiry: { case: 'expireTime', value: timestampFromDate(expiresAt) } as const }),
  });
  if (options.json) print(json(CreateKeyResponseSchema, response));
  else if (options.quiet) print(response.secret);
  else print(`id      ${response.key?.id}\nsecret  ${response.secret}\n\nThe secret is not shown again.`);
  return EXIT.ok;
}

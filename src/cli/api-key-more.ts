import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import {
  ExpireKeyResponseSchema,
  GetKeyResponseSchema,
  GetStatsResponseSchema,
  UpdateKeyResponseSchema,
} from '../../gen/apikey/v1/admin_pb.ts';
import { type Key, KeyStatusSchema, KeyTypeSchema, RotationStateSchema } from '../../gen/apikey/v1/key_pb.ts';
import {
  CliError,
  type ClientDefaults,
  type Clients,
  type ConnectionOptions,
  EXIT,
  type Runner,
  withConnection,
} from './client.ts';
import { json, type Print, table, time } from './output.ts';
import { collect, isoTime, nameOf, pair, rateLimit, seconds, toRateLimits } from './values.ts';

interface ExpireOptions extends ConnectionOptions {
  readonly at?: Date;
}

interface UpdateOptions extends ConnectionOptions {
  readonly name?: string;
  readonly owner?: string;
  readonly scope?: readonly string[];
  readonly rateLimit?: readonly ReturnType<typeof rateLimit>[];
  readonly unlimited?: boolean;
  readonly bucket?: string;
  readonly allowIp?: readonly string[];
  readonly anyIp?: boolean;
  readonly metadata?: readonly (readonly [string, string])[];
  readonly rotateEvery?: number;
  readonly enable?: boolean;
  readonly disable?: boolean;
  readonly etag?: string;
}

/** `api-key get | update | expire | stats`. */
export function addMoreKeyCommands(
  group: Command,
  defaults: ClientDefaults,
  run: Runner,
  print: Print,
): void {
  withConnection(group.command('get <id>'), defaults)
    .description('show one key')
    .action(run((clients, options: ConnectionOptions, id) => get(clients, options, id, print)));

  withConnection(group.command('update <id>'), defaults)
    .description('change what is named, and nothing else')
    .option('--name <name>', 'a new name')
    .option('--owner <id>', 'who it belongs to')
    .option('--scope <scope>', 'all that it grants from now on; may be repeated', collect(String))
    .option('--rate-limit <limit>', 'all its limits from now on; may be repeated', collect(rateLimit))
    .option('--unlimited', 'no limits')
    .option('--bucket <name>', 'share counters with the keys of this bucket')
    .option('--allow-ip <cidr>', 'all its addresses from now on; may be repeated', collect(String))
    .option('--any-ip', 'from anywhere')
    .option('--metadata <name=value>', 'all its metadata from now on; may be repeated', collect(pair))
    .option(
      '--rotate-every <length>',
      'raise an alert when its secret is older, e.g. 90d; 0s: never',
      seconds,
    )
    .option('--disable', 'switch it off')
    .option('--enable', 'switch it on again')
    .option('--etag <etag>', 'only if nobody has changed it since')
    .addHelpText(
      'after',
      '\nExample: apikeyd api-key update uid-apikey-0123456789abcdef --scope traces:read --scope traces:write',
    )
    .action(run((clients, options: UpdateOptions, id) => update(clients, options, id, print)));

  withConnection(group.command('expire <id>'), defaults)
    .description('let a key expire, now or at a time')
    .option('--at <time>', 'e.g. 2027-01-31T12:00:00Z; not later than it would anyway', isoTime)
    .action(run((clients, options: ExpireOptions, id) => expire(clients, options, id, print)));

  withConnection(group.command('stats'), defaults)
    .description('counts of keys, events and lockouts')
    .action(run((clients, options: ConnectionOptions) => stats(clients, options, print)));
}

async function get(
  { admin }: Clients,
  options: ConnectionOptions,
  id: string,
  print: Print,
): Promise<number> {
  const answer = await admin.getKey({ id });
  print(options.json || answer.key === undefined ? json(GetKeyResponseSchema, answer) : describe(answer.key));
  return EXIT.ok;
}

/** One fact a line. */
function describe(key: Key): string {
  const { rotation } = key;
  const limits = key.rateLimits.map(({ name, limit, window }) => `${name} ${limit}/${window?.seconds}s`);
  const facts: [string, string][] = [
    ['id', key.id],
    ['name', key.name],
    ['status', nameOf(KeyStatusSchema, key.status)],
    ['type', nameOf(KeyTypeSchema, key.keyType)],
    ['owner', key.ownerId],
    ['secret', key.hint],
    ['scopes', key.scopes.join(' ')],
    ['limits', limits.join(', ') || 'none'],
    ['bucket', key.rateLimitBucket],
    ['addresses', key.ipAllowlist.join(' ') || 'any'],
    ['created', time(key.createTime)],
    ['expires', time(key.expireTime)],
    ['revoked', time(key.revokeTime)],
    ['last used', time(key.lastUseTime)],
    [
      'rotation',
      `${nameOf(RotationStateSchema, rotation?.state ?? 0)}${rotation?.expireTime ? `, old secret until ${time(rotation.expireTime)}, ${rotation.oldUses} uses` : ''}`,
    ],
    ['rotation due', time(key.rotationDueTime)],
    ['etag', key.etag],
  ];
  const metadata = Object.entries(key.metadata).map(([name, value]): [string, string] => [
    'metadata',
    `${name}=${value}`,
  ]);
  return [...facts, ...metadata].map(([name, value]) => `${name.padEnd(12)}  ${value}`).join('\n');
}

async function update({ admin }: Clients, options: UpdateOptions, id: string, print: Print): Promise<number> {
  const changes: [boolean, string, object][] = [
    [options.name !== undefined, 'name', { name: options.name }],
    [options.owner !== undefined, 'owner_id', { ownerId: options.owner }],
    [options.scope !== undefined, 'scopes', { scopes: options.scope }],
    [
      options.rateLimit !== undefined || options.unlimited === true,
      'rate_limits',
      { rateLimits: toRateLimits(options.rateLimit ?? []) },
    ],
    [options.bucket !== undefined, 'rate_limit_bucket', { rateLimitBucket: options.bucket }],
    [
      options.allowIp !== undefined || options.anyIp === true,
      'ip_allowlist',
      { ipAllowlist: options.allowIp ?? [] },
    ],
    [options.metadata !== undefined, 'metadata', { metadata: Object.fromEntries(options.metadata ?? []) }],
    [
      options.rotateEvery !== undefined,
      'rotate_every',
      { rotateEvery: { seconds: BigInt(options.rotateEvery ?? 0) } },
    ],
    [options.disable === true || options.enable === true, 'disabled', { disabled: options.disable === true }],
  ];
  const chosen = changes.filter(([is]) => is);
  if (chosen.length === 0)
    throw new CliError(EXIT.usage, 'name what to change: see apikeyd api-key update --help');
  if (options.disable === true && options.enable === true)
    throw new CliError(EXIT.usage, '--enable or --disable, not both');
  const key = Object.assign({ id, etag: options.etag ?? '' }, ...chosen.map(([, , fields]) => fields));
  const answer = await admin.updateKey({ key, updateMask: { paths: chosen.map(([, path]) => path) } });
  print(
    options.json
      ? json(UpdateKeyResponseSchema, answer)
      : `changed ${chosen.map(([, path]) => path).join(', ')} of ${id}`,
  );
  return EXIT.ok;
}

async function expire({ admin }: Clients, options: ExpireOptions, id: string, print: Print): Promise<number> {
  const answer = await admin.expireKey({
    id,
    ...(options.at === undefined ? {} : { expireTime: timestampFromDate(options.at) }),
  });
  print(
    options.json ? json(ExpireKeyResponseSchema, answer) : `${id} expires at ${time(answer.key?.expireTime)}`,
  );
  return EXIT.ok;
}

async function stats({ admin }: Clients, options: ConnectionOptions, print: Print): Promise<number> {
  const answer = await admin.getStats({});
  if (options.json) {
    print(json(GetStatsResponseSchema, answer));
    return EXIT.ok;
  }
  const rows = [
    ...Object.entries(answer.keysByStatus).map(([name, n]) => [`keys ${name}`, String(n)]),
    ...Object.entries(answer.keysByType).map(([name, n]) => [`keys of type ${name}`, String(n)]),
    ...Object.entries(answer.eventsByOutcome).map(([name, n]) => [`events ${name}, 24 h`, String(n)]),
    ['events in the log', String(answer.auditEvents)],
    ['addresses locked out', String(answer.lockouts)],
    ['revision', String(answer.revision)],
  ];
  print(table(['WHAT', 'COUNT'], rows));
  return EXIT.ok;
}

import { UpdateKeyResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { CliError, type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print } from '../output.ts';
import { collect, collectPairs, rateLimit, seconds, toRateLimits } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

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
  readonly localValidation?: boolean;
  readonly enable?: boolean;
  readonly disable?: boolean;
  readonly etag?: string;
}

/** `api-key update` */
export function addUpdate(context: VerbContext): void {
  addVerb(context, 'update <id>')
    .description('change the named fields and no others')
    .option('--name <name>', 'a new name')
    .option('--owner <id>', 'a new owner')
    .option('--scope <scope>', 'replaces all its scopes; may be repeated', collect(String))
    .option('--rate-limit <limit>', 'replaces all its limits; may be repeated', collect(rateLimit))
    .option('--unlimited', 'remove all limits')
    .option('--bucket <name>', 'share counters with the keys of this bucket')
    .option('--allow-ip <cidr>', 'replaces its whole allow-list; may be repeated', collect(String))
    .option('--any-ip', 'remove the allow-list')
    .option('--metadata <name=value>', 'replaces all its metadata; may be repeated', collectPairs)
    .option(
      '--rotate-every <length>',
      'raise an alert when its secret is older than this, e.g. 90d; 0s: never',
      seconds,
    )
    .option('--local-validation', 'guards that hold a lease may decide about it by themselves')
    .option('--no-local-validation', "each decision is the server's again")
    .option('--disable', 'disable the key')
    .option('--enable', 'enable the key again')
    .option('--etag <etag>', 'only if the key still has this etag')
    .addHelpText(
      'after',
      '\nExample: apikeyd api-key update uid-apikey-0123456789abcdef --scope traces:read --scope traces:write',
    )
    .action(
      context.run((clients, options: UpdateOptions, id) => update(clients, options, id, context.print)),
    );
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
    [
      options.localValidation !== undefined,
      'local_validation',
      { localValidation: options.localValidation === true },
    ],
    [options.disable === true || options.enable === true, 'disabled', { disabled: options.disable === true }],
  ];
  const chosen = changes.filter(([is]) => is);
  if (chosen.length === 0)
    throw new CliError(EXIT.usage, 'name a field to change: see apikeyd api-key update --help');
  if (options.disable === true && options.enable === true)
    throw new CliError(EXIT.usage, '--enable or --disable, not both');
  const key = Object.assign({ id, etag: options.etag ?? '' }, ...chosen.map(([, , fields]) => fields));
  const response = await admin.updateKey({ key, updateMask: { paths: chosen.map(([, path]) => path) } });
  print(
    options.json
      ? json(UpdateKeyResponseSchema, response)
      : `changed ${chosen.map(([, path]) => path).join(', ')} of ${id}`,
  );
  return EXIT.ok;
}

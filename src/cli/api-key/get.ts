import { GetKeyResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import {
  type Key,
  KeyStatusSchema,
  KeyTypeSchema,
  RotationStateSchema,
} from '../../../gen/apikey/v1/key_pb.ts';
import { type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, plain, time } from '../output.ts';
import { nameOf } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

/** `api-key get` */
export function addGet(context: VerbContext): void {
  addVerb(context, 'get <id>')
    .description('show one key')
    .action(
      context.run((clients, options: ConnectionOptions, id) => get(clients, options, id, context.print)),
    );
}

async function get(
  { admin }: Clients,
  options: ConnectionOptions,
  id: string,
  print: Print,
): Promise<number> {
  const response = await admin.getKey({ id });
  print(
    options.json || response.key === undefined
      ? json(GetKeyResponseSchema, response)
      : describe(response.key),
  );
  return EXIT.ok;
}

/** One field per line. */
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
  return [...facts, ...metadata].map(([name, value]) => `${name.padEnd(12)}  ${plain(value)}`).join('\n');
}

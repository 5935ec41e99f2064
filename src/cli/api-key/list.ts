import { ListKeysResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import {
  type Key,
  KeyStatus,
  KeyStatusSchema,
  KeyType,
  KeyTypeSchema,
} from '../../../gen/apikey/v1/key_pb.ts';
import { type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, table, time } from '../output.ts';
import { nameOf, wholeNumber, word } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

interface ListOptions extends ConnectionOptions {
  readonly owner?: string;
  readonly keyType?: KeyType;
  readonly active?: boolean;
  readonly status?: KeyStatus;
  readonly query?: string;
  readonly limit: number;
}

/** `api-key list` */
export function addList(context: VerbContext): void {
  addVerb(context, 'list')
    .description('list keys, oldest first')
    .option('--owner <id>', 'only keys of this owner')
    .option('--key-type <type>', 'only keys of this type', word(KeyTypeSchema))
    .option('--active', 'only active keys')
    .option('--status <status>', 'only keys with this status now', word(KeyStatusSchema))
    .option('--query <text>', 'only keys whose name or id begins with this text')
    .option('--limit <n>', 'greatest number of keys', wholeNumber, 1000)
    .action(context.run((clients, options: ListOptions) => list(clients, options, context.print)));
}

async function list({ admin }: Clients, options: ListOptions, print: Print): Promise<number> {
  const keys: Key[] = [];
  let pageToken = '';
  do {
    const page = await admin.listKeys({
      ownerId: options.owner ?? '',
      keyType: options.keyType ?? KeyType.UNSPECIFIED,
      activeOnly: options.active ?? false,
      status: options.status ?? KeyStatus.UNSPECIFIED,
      query: options.query ?? '',
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

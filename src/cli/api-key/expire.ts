import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { ExpireKeyResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, time } from '../output.ts';
import { isoTime } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

interface ExpireOptions extends ConnectionOptions {
  readonly at?: Date;
}

/** `api-key expire` */
export function addExpire(context: VerbContext): void {
  addVerb(context, 'expire <id>')
    .description('let a key expire, now or at a time')
    .option('--at <time>', 'e.g. 2027-01-31T12:00:00Z; not later than its present expiry', isoTime)
    .action(
      context.run((clients, options: ExpireOptions, id) => expire(clients, options, id, context.print)),
    );
}

async function expire({ admin }: Clients, options: ExpireOptions, id: string, print: Print): Promise<number> {
  const response = await admin.expireKey({
    id,
    ...(options.at === undefined ? {} : { expireTime: timestampFromDate(options.at) }),
  });
  print(
    options.json
      ? json(ExpireKeyResponseSchema, response)
      : `${id} expires at ${time(response.key?.expireTime)}`,
  );
  return EXIT.ok;
}

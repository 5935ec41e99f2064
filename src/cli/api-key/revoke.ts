import { RevokeKeyResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { RevokeReason, RevokeReasonSchema } from '../../../gen/apikey/v1/key_pb.ts';
import { type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, time } from '../output.ts';
import { word } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

interface RevokeOptions extends ConnectionOptions {
  readonly reason: RevokeReason;
  readonly note?: string;
}

/** `api-key revoke` */
export function addRevoke(context: VerbContext): void {
  addVerb(context, 'revoke <id>')
    .description('revoke a key for good, on every process')
    .option(
      '--reason <reason>',
      'key-compromise, superseded, …',
      word(RevokeReasonSchema),
      RevokeReason.CESSATION_OF_OPERATION,
    )
    .option('--note <text>', 'a note, kept with the key')
    .action(
      context.run((clients, options: RevokeOptions, id) => revoke(clients, options, id, context.print)),
    );
}

async function revoke({ admin }: Clients, options: RevokeOptions, id: string, print: Print): Promise<number> {
  const response = await admin.revokeKey({ id, reason: options.reason, note: options.note ?? '' });
  if (options.json) print(json(RevokeKeyResponseSchema, response));
  else print(`revoked ${id} at ${time(response.key?.revokeTime)}, revision ${response.revision}`);
  return EXIT.ok;
}

import { GetStatsResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, table } from '../output.ts';
import { addVerb, type VerbContext } from './verb.ts';

/** `api-key stats` */
export function addStats(context: VerbContext): void {
  addVerb(context, 'stats')
    .description('count keys, events and lockouts')
    .action(context.run((clients, options: ConnectionOptions) => stats(clients, options, context.print)));
}

async function stats({ admin }: Clients, options: ConnectionOptions, print: Print): Promise<number> {
  const response = await admin.getStats({});
  if (options.json) {
    print(json(GetStatsResponseSchema, response));
    return EXIT.ok;
  }
  const rows = [
    ...Object.entries(response.keysByStatus).map(([name, n]) => [`keys ${name}`, String(n)]),
    ...Object.entries(response.keysByType).map(([name, n]) => [`keys of type ${name}`, String(n)]),
    ...Object.entries(response.eventsByOutcome).map(([name, n]) => [`events ${name}, 24 h`, String(n)]),
    ['events in the log', String(response.auditEvents)],
    ['addresses locked out', String(response.lockouts)],
    ['revision', String(response.revision)],
  ];
  print(table(['WHAT', 'COUNT'], rows));
  return EXIT.ok;
}

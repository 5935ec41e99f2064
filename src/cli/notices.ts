import { toJson } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Command } from 'commander';
import { ListAnomaliesResponseSchema, ResolveAnomalyResponseSchema } from '../../gen/apikey/v1/admin_pb.ts';
import {
  type Alert,
  AlertSchema,
  AlertTypeSchema,
  AnomalyState,
  AnomalyStateSchema,
  AnomalyTypeSchema,
} from '../../gen/apikey/v1/watch_pb.ts';
import {
  type ClientDefaults,
  type Clients,
  type ConnectionOptions,
  EXIT,
  runner,
  withConnection,
} from './client.ts';
import { json, type Print, plain, table, time } from './output.ts';
import { isoTime, nameOf, wholeNumber } from './values.ts';

interface ListOptions extends ConnectionOptions {
  readonly key?: string;
  readonly all?: boolean;
  readonly limit: number;
}

interface WatchOptions extends ConnectionOptions {
  readonly since?: Date;
}

/** `apikeyd anomalies …`: unusual use of keys. */
export function anomaliesCommand(
  defaults: ClientDefaults,
  print: Print,
  exit: (code: number) => void,
): Command {
  const group = new Command('anomalies').description('list and resolve unusual use of keys');
  const run = runner(exit);
  withConnection(group.command('list'), defaults)
    .description('list open anomalies, newest first')
    .option('--key <id>', 'only of this key')
    .option('--all', 'also those that are resolved')
    .option('--limit <n>', 'greatest number of anomalies, up to 1000', wholeNumber, 100)
    .action(run((clients, options: ListOptions) => list(clients, options, print)));
  withConnection(group.command('resolve <id>'), defaults)
    .description('mark an anomaly as resolved')
    .action(run((clients, options: ConnectionOptions, id) => resolve(clients, options, id, print)));
  return group;
}

/** `apikeyd alerts watch`: alerts as they are raised. */
export function alertsCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  const group = new Command('alerts').description('watch alerts');
  withConnection(group.command('watch'), defaults)
    .description('print alerts as they are raised, until interrupted')
    .option('--since <time>', 'also those raised since, e.g. 2027-01-31T12:00:00Z', isoTime)
    .action(runner(exit)((clients, options: WatchOptions) => watch(clients, options, print)));
  return group;
}

async function list({ admin }: Clients, options: ListOptions, print: Print): Promise<number> {
  const state = options.all ? AnomalyState.UNSPECIFIED : AnomalyState.OPEN;
  const response = await admin.listAnomalies({
    keyId: options.key ?? '',
    state,
    pageSize: Math.min(options.limit, 1000),
  });
  const rows = response.anomalies.map((anomaly) => [
    anomaly.id,
    nameOf(AnomalyStateSchema, anomaly.state),
    nameOf(AnomalyTypeSchema, anomaly.type),
    anomaly.keyId,
    String(anomaly.count),
    time(anomaly.firstTime),
    time(anomaly.lastTime),
  ]);
  if (options.json) print(json(ListAnomaliesResponseSchema, response));
  else print(table(['ID', 'STATE', 'TYPE', 'KEY', 'COUNT', 'FIRST', 'LAST'], rows));
  return EXIT.ok;
}

async function resolve(
  { admin }: Clients,
  options: ConnectionOptions,
  id: string,
  print: Print,
): Promise<number> {
  const response = await admin.resolveAnomaly({ id });
  print(
    options.json
      ? json(ResolveAnomalyResponseSchema, response)
      : `resolved ${id} at ${time(response.anomaly?.resolveTime)}`,
  );
  return EXIT.ok;
}

/** Ends only by an error or a signal. */
async function watch({ admin }: Clients, options: WatchOptions, print: Print): Promise<number> {
  const since = options.since === undefined ? {} : { sinceTime: timestampFromDate(options.since) };
  for await (const { alert } of admin.watchAlerts(since, { timeoutMs: 0 })) {
    if (alert === undefined) continue;
    print(options.json ? JSON.stringify(toJson(AlertSchema, alert)) : line(alert));
  }
  return EXIT.ok;
}

function line(alert: Alert): string {
  return `${time(alert.time)}  ${nameOf(AlertTypeSchema, alert.type).padEnd(22)}  ${plain(alert.text)}`;
}

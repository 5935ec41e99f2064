import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fromJson, toJson } from '@bufbuild/protobuf';
import { timestampFromDate, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Command } from 'commander';
import { VerifyAuditResponseSchema } from '../../gen/apikey/v1/admin_pb.ts';
import {
  AuditChainHeadSchema,
  AuditDefectKindSchema,
  type AuditEvent,
  AuditEventSchema,
} from '../../gen/apikey/v1/audit_pb.ts';
import {
  CliError,
  type ClientDefaults,
  type Clients,
  type ConnectionOptions,
  EXIT,
  runner,
  withConnection,
} from './client.ts';
import { json, type Print, Progress, plain, state, table, time } from './output.ts';
import { nameOf, timeOrAgo, wholeNumber } from './values.ts';

/** Enough for many millions of events: a million takes seconds. */
const VERIFY_MS = 3_600_000;
const PAGE = 1_000;
const TAIL_MS = 1_000;
const LATE_MS = 15_000;

interface FilterOptions extends ConnectionOptions {
  readonly key?: string;
  readonly outcome?: string;
  readonly clientIp?: string;
  readonly method?: string;
  readonly caller?: string;
}

interface ListOptions extends FilterOptions {
  readonly limit: number;
  readonly since?: Date;
  readonly until?: Date;
}

interface TailOptions extends FilterOptions {
  readonly all?: boolean;
}

interface VerifyOptions extends ConnectionOptions {
  readonly heads?: string;
}

/** `apikeyd audit …`: reads and verifies the audit log over gRPC. */
export function auditCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  const group = new Command('audit').description('list, follow, export and verify the audit');
  const run = runner(exit);

  withFilter(withConnection(group.command('list'), defaults))
    .description('list events, newest first')
    .option('--since <time>', 'only at or after this time, or this long ago: 24h', timeOrAgo)
    .option('--until <time>', 'only before this time, or this long ago', timeOrAgo)
    .option('--limit <n>', 'greatest number of events', wholeNumber, 100)
    .action(run((clients, options: ListOptions) => list(clients, options, print)));

  withFilter(withConnection(group.command('tail'), defaults))
    .description('print events as they are recorded, until interrupted')
    .option('--all', 'also events of ListAuditEvents, which this command causes itself')
    .action(run((clients, options: TailOptions) => tail(clients, options, print)));

  withConnection(group.command('export'), defaults)
    .description('print every event as a line of JSON, newest first, then the heads of the chains')
    .addHelpText(
      'after',
      '\nKeep the last line elsewhere: audit verify --heads FILE proves later that no event was removed.',
    )
    .action(run((clients) => exportAll(clients, print)));

  withConnection(group.command('verify'), defaults)
    .description("recompute the audit's hash chains; exit 1 when an event was changed or removed")
    .option(
      '--heads <file>',
      'a file whose last line is the last line of an export: its chains must still be complete',
    )
    .action(run((clients, options: VerifyOptions) => verify(clients, options, print)));

  return group;
}

/** Events, newest first, page by page. */
async function* events({ admin }: Clients, filter: object, limit: number): AsyncGenerator<AuditEvent> {
  let pageToken = '';
  let left = limit;
  do {
    const page = await admin.listAuditEvents({ ...filter, pageSize: Math.min(PAGE, left), pageToken });
    yield* page.events;
    left -= page.events.length;
    pageToken = page.nextPageToken;
  } while (pageToken !== '' && left > 0);
}

function withFilter(command: Command): Command {
  return command
    .option('--key <id>', 'only about this key')
    .option('--outcome <name>', 'only with this outcome, e.g. DECISION_REVOKED')
    .option('--method <name>', 'only of this method, e.g. ValidateKey or ApiKeyAuth/ValidateKey')
    .option('--caller <id>', 'only of calls that this key made')
    .option('--client-ip <address>', 'only with this client address');
}

function filterOf({ key = '', outcome = '', clientIp = '', method = '', caller = '' }: FilterOptions) {
  return { keyId: key, outcome, clientIp, method, callerKeyId: caller };
}

function cells(event: AuditEvent): string[] {
  const method = event.method.replace('apikey.v1.', '');
  const { outcome, count } = event;
  const calls = count > 0n ? `${outcome} ×${count}` : outcome;
  return [time(event.time), calls, method, event.keyId, event.clientIp, event.reason];
}

/** Ends only by an error or a signal. Each event is shown once, even when it is recorded late. */
async function tail(clients: Clients, options: TailOptions, print: Print): Promise<number> {
  const shown = new Map<string, number>();
  const begun = Date.now();
  for (;;) {
    // An event has the time when its call arrived, and may be recorded much later.
    const from = Math.max(begun, Date.now() - LATE_MS);
    const fresh: AuditEvent[] = [];
    const filter = { ...filterOf(options), startTime: timestampFromMs(from) };
    for await (const event of events(clients, filter, Number.POSITIVE_INFINITY)) {
      const own = event.method.endsWith('/ListAuditEvents') && options.all !== true;
      if (!own && !shown.has(event.id)) fresh.push(event);
    }
    for (const event of fresh.reverse()) {
      shown.set(event.id, Date.now());
      print(
        options.json
          ? JSON.stringify(toJson(AuditEventSchema, event))
          : cells(event).map(plain).map(state).join('  ').trimEnd(),
      );
    }
    for (const [id, at] of shown) if (at < Date.now() - 2 * LATE_MS) shown.delete(id);
    await delay(TAIL_MS);
  }
}

async function list(clients: Clients, options: ListOptions, print: Print): Promise<number> {
  const { since, until } = options;
  const filter = {
    ...filterOf(options),
    ...(since === undefined ? {} : { startTime: timestampFromDate(since) }),
    ...(until === undefined ? {} : { endTime: timestampFromDate(until) }),
  };
  const rows: string[][] = [];
  for await (const event of events(clients, filter, options.limit)) {
    if (options.json) print(JSON.stringify(toJson(AuditEventSchema, event)));
    else rows.push(cells(event));
  }
  if (!options.json) print(table(['TIME', 'OUTCOME', 'METHOD', 'KEY', 'CLIENT', 'REASON'], rows));
  return EXIT.ok;
}

async function exportAll(clients: Clients, print: Print): Promise<number> {
  const checking = clients.admin.verifyAudit({}, { timeoutMs: VERIFY_MS });
  const { heads, checkedEvents } = await new Progress('verifying').during(checking);
  const progress = new Progress('exporting', Number(checkedEvents));
  let exported = 0;
  for await (const event of events(clients, {}, Number.POSITIVE_INFINITY)) {
    print(JSON.stringify(toJson(AuditEventSchema, event)));
    progress.at(++exported);
  }
  progress.end();
  print(JSON.stringify({ heads: heads.map((head) => toJson(AuditChainHeadSchema, head)) }));
  return EXIT.ok;
}

async function verify({ admin }: Clients, options: VerifyOptions, print: Print): Promise<number> {
  const expectedHeads = options.heads === undefined ? [] : headsFrom(options.heads);
  const checking = admin.verifyAudit({ expectedHeads }, { timeoutMs: VERIFY_MS });
  const response = await new Progress('verifying').during(checking);
  const { firstDefect: defect } = response;
  if (options.json) print(json(VerifyAuditResponseSchema, response));
  else if (defect === undefined)
    print(`intact: ${response.checkedEvents} events in ${response.heads.length} chains`);
  else {
    const what = nameOf(AuditDefectKindSchema, defect.kind);
    const event = defect.eventId === '' ? '' : `, event ${plain(defect.eventId)}`;
    print(
      `${what}: chain ${plain(defect.processId)}, place ${defect.sequence}${event}, after ${response.checkedEvents} good events`,
    );
  }
  return response.intact ? EXIT.ok : EXIT.denied;
}

function headsFrom(file: string) {
  try {
    const last = readFileSync(file, 'utf8').trimEnd().split('\n').at(-1) ?? '';
    const { heads } = JSON.parse(last) as { heads: [] };
    return heads.map((head) => fromJson(AuditChainHeadSchema, head));
  } catch {
    throw new CliError(EXIT.usage, `${file}: its last line is not the last line of an export`);
  }
}

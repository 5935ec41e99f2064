import { readFileSync } from 'node:fs';
import { fromJson, toJson } from '@bufbuild/protobuf';
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
import { json, type Print, table, time } from './output.ts';
import { nameOf, wholeNumber } from './values.ts';

/** A million events take seconds; a store of many millions may take this. */
const VERIFY_MS = 3_600_000;
const PAGE = 1_000;

interface ListOptions extends ConnectionOptions {
  readonly key?: string;
  readonly outcome?: string;
  readonly clientIp?: string;
  readonly limit: number;
}

interface VerifyOptions extends ConnectionOptions {
  readonly heads?: string;
}

/** `apikeyd audit …`: what was asked, answered and changed, over gRPC. */
export function auditCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  const group = new Command('audit').description('list, export and verify the audit');
  const run = runner(exit);

  withConnection(group.command('list'), defaults)
    .description('list events, newest first')
    .option('--key <id>', 'only about this key')
    .option('--outcome <name>', 'only with this outcome, e.g. DECISION_REVOKED')
    .option('--client-ip <address>', 'only from there')
    .option('--limit <n>', 'at most so many', wholeNumber, 100)
    .action(run((clients, options: ListOptions) => list(clients, options, print)));

  withConnection(group.command('export'), defaults)
    .description('print every event as a line of JSON, newest first, then the heads of the chains')
    .addHelpText(
      'after',
      '\nKeep the last line elsewhere: audit verify --heads FILE proves later that nothing was taken away.',
    )
    .action(run((clients) => exportAll(clients, print)));

  withConnection(group.command('verify'), defaults)
    .description("recompute the audit's hash chains; exit 1 when something was changed or taken away")
    .option(
      '--heads <file>',
      'a file whose last line is the last line of an export: also that must still be there',
    )
    .action(run((clients, options: VerifyOptions) => verify(clients, options, print)));

  return group;
}

/** Newest first, page by page. */
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

async function list(clients: Clients, options: ListOptions, print: Print): Promise<number> {
  const filter = {
    keyId: options.key ?? '',
    outcome: options.outcome ?? '',
    clientIp: options.clientIp ?? '',
  };
  const rows: string[][] = [];
  for await (const event of events(clients, filter, options.limit)) {
    if (options.json) print(JSON.stringify(toJson(AuditEventSchema, event)));
    else
      rows.push([
        time(event.time),
        event.outcome,
        event.method.replace('apikey.v1.', ''),
        event.keyId,
        event.clientIp,
        event.reason,
      ]);
  }
  if (!options.json) print(table(['TIME', 'OUTCOME', 'METHOD', 'KEY', 'CLIENT', 'REASON'], rows));
  return EXIT.ok;
}

async function exportAll(clients: Clients, print: Print): Promise<number> {
  const { heads } = await clients.admin.verifyAudit({}, { timeoutMs: VERIFY_MS });
  for await (const event of events(clients, {}, Number.POSITIVE_INFINITY))
    print(JSON.stringify(toJson(AuditEventSchema, event)));
  print(JSON.stringify({ heads: heads.map((head) => toJson(AuditChainHeadSchema, head)) }));
  return EXIT.ok;
}

async function verify({ admin }: Clients, options: VerifyOptions, print: Print): Promise<number> {
  const expectedHeads = options.heads === undefined ? [] : headsFrom(options.heads);
  const answer = await admin.verifyAudit({ expectedHeads }, { timeoutMs: VERIFY_MS });
  const { firstDefect: defect } = answer;
  if (options.json) print(json(VerifyAuditResponseSchema, answer));
  else if (defect === undefined)
    print(`intact: ${answer.checkedEvents} events in ${answer.heads.length} chains`);
  else {
    const what = nameOf(AuditDefectKindSchema, defect.kind);
    const event = defect.eventId === '' ? '' : `, event ${defect.eventId}`;
    print(
      `${what}: chain ${defect.processId}, place ${defect.sequence}${event}, after ${answer.checkedEvents} good events`,
    );
  }
  return answer.intact ? EXIT.ok : EXIT.denied;
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

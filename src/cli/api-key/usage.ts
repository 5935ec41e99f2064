import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { GetUsageResponseSchema, UsageStep } from '../../../gen/apikey/v1/admin_pb.ts';
import { DecisionSchema } from '../../../gen/apikey/v1/auth_pb.ts';
import { type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, table, time } from '../output.ts';
import { nameOf, seconds } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

interface UsageOptions extends ConnectionOptions {
  readonly last: number;
}

const DAY_SECONDS = 86_400;
const BAR_CELLS = 20;

/** `api-key usage` */
export function addUsage(context: VerbContext): void {
  addVerb(context, 'usage <id>')
    .description('count the decisions about a key, by hour up to 2 days, else by day')
    .option('--last <length>', 'how far back: 24h, 7d, 30d, at most 400d', seconds, DAY_SECONDS)
    .action(context.run((clients, options: UsageOptions, id) => usage(clients, id, options, context.print)));
}

async function usage(
  { admin }: Clients,
  keyId: string,
  options: UsageOptions,
  print: Print,
): Promise<number> {
  const step = options.last > 2 * DAY_SECONDS ? UsageStep.DAY : UsageStep.HOUR;
  const now = Date.now();
  const response = await admin.getUsage({
    keyId,
    step,
    startTime: timestampFromMs(now - options.last * 1000),
    endTime: timestampFromMs(now),
  });
  if (options.json) {
    print(json(GetUsageResponseSchema, response));
    return EXIT.ok;
  }
  const most = Math.max(1, ...response.rows.map(({ count }) => Number(count)));
  // Bars are only for people: on a terminal.
  const bars = process.stdout.isTTY === true;
  const rows = response.rows.map(({ time: at, decision, count }) => {
    const hour = new Date(at === undefined ? 0 : timestampMs(at)).toISOString();
    const shown = step === UsageStep.DAY ? hour.slice(0, 10) : `${hour.slice(0, 13)}:00Z`;
    const bar = '█'.repeat(Math.max(1, Math.round((Number(count) / most) * BAR_CELLS)));
    return [shown, nameOf(DecisionSchema, decision), String(count), ...(bars ? [bar] : [])];
  });
  print(
    rows.length === 0 ? 'no decisions' : table(['TIME', 'DECISION', 'COUNT', ...(bars ? [''] : [])], rows),
  );
  if (response.lastAddresses.length > 0) {
    const addresses = response.lastAddresses.map((used) => [
      used.clientIp,
      time(used.lastTime),
      String(used.count),
    ]);
    print(`\n${table(['ADDRESS, 24 h', 'LAST USED', 'EVENTS'], addresses)}`);
  }
  return EXIT.ok;
}

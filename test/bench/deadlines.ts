/** Most calls have the same headers, which are recognised: what does a different deadline in each call cost? */
import { readFileSync } from 'node:fs';
import { closedLoop } from './load-client.ts';
import { type Answered, alternate, type Bench, median, ratio, rounded, spread, table } from './measure.ts';
import { ALL_ON, apikeyd, targetOf } from './servers.ts';

const CALLS = 60_000;

export async function deadlines({ folder }: Bench): Promise<Answered> {
  const server = await apikeyd({
    ...ALL_ON,
    folder,
    name: 'deadlines',
    storeUrl: `sqlite:${folder}/deadlines.db`,
  });
  const message = readFileSync(server.request);
  const run = (own: boolean) => closedLoop({ ...targetOf(server), deadlines: own }, CALLS, () => message);
  for (const own of [false, true]) await run(own);
  const figures = await alternate([false, true], 7, run);
  await server.stop();
  const [alike = []] = figures;
  const rows = ['headers that are always alike', 'a deadline of its own in each call'].map((what, i) => {
    const of = figures[i] ?? [];
    return [what, rounded(median(of)), spread(of), ratio(of, alike).toFixed(2)];
  });
  return {
    facts: { ownDeadlinesVsAlike: ratio(figures[1] ?? [], alike) },
    text: `## A deadline in each call

All on. Headers that come again byte for byte are not read again; with a deadline that no other call has they are, and there
is a timer. Encoded as gRPC libraries do: what came before is named by its place in a table.

${table(['what', 'calls/s', 'spread', 'of alike'], rows)}`,
  };
}

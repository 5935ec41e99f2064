/** How long does a call take under less load than the capacity? */
import { readFileSync } from 'node:fs';
import { openLoop } from './load-client.ts';
import { type Answered, type Bench, median, rounded, say, table } from './measure.ts';
import { ALL_ON, apikeyd, handler, load, targetOf } from './servers.ts';

const SECONDS = 4;
const ROUNDS = 5;

export async function latency({ folder }: Bench): Promise<Answered> {
  const server = await apikeyd({
    ...ALL_ON,
    folder,
    name: 'all on',
    storeUrl: `sqlite:${folder}/latency.db`,
  });
  const bare = await handler('bare', folder);
  const servers = [server, bare];
  for (const each of servers) load(each, 50_000);
  const capacity = median([1, 2, 3].map(() => load(server, 60_000)));
  const rows: (string | number)[][] = [];
  const p99AtHalf: number[] = [];
  for (const part of [0.25, 0.5, 0.75]) {
    const rounds: number[][][] = servers.map(() => []);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, each] of servers.entries()) {
        const message = readFileSync(each.request);
        const took = await openLoop(targetOf(each), capacity * part, SECONDS, () => message);
        rounds[i]?.push([0.5, 0.99, 0.999].map((p) => took[Math.floor(took.length * p)] ?? Number.NaN));
      }
    }
    for (const [i, { name }] of servers.entries()) {
      const figures = [0, 1, 2].map((p) => median((rounds[i] ?? []).map((round) => round[p] ?? 0)));
      if (part === 0.5) p99AtHalf.push(figures[1] ?? Number.NaN);
      rows.push([`${part * 100} %`, rounded(capacity * part), name, ...figures.map((ms) => ms.toFixed(2))]);
      say(`  ${rows.at(-1)?.join(' ')}`);
    }
  }
  for (const each of servers) await each.stop();
  const [own = Number.NaN, machine = Number.NaN] = p99AtHalf;
  return {
    facts: { p99AtHalfMs: own, p99AtHalfOfBareMs: machine },
    text: `## How long a call takes

Asked in an open loop, at so much of what can be served; from when a call was due, whether it could be sent then or
not. Milliseconds, medians of ${ROUNDS} alternating runs of ${SECONDS} s. The bare handler of node:http2 is asked at the
same rate, for comparison.

${table(['of capacity', 'calls/s', 'what', 'p50', 'p99', 'p99.9'], rows)}`,
  };
}

/** How long does a call take when less is asked than could be? */
import { readFileSync } from 'node:fs';
import { openLoop } from './load-client.ts';
import { type Answered, type Bench, median, rounded, say, table } from './measure.ts';
import { ALL_ON, apikeyd, load, targetOf } from './servers.ts';

const SECONDS = 6;
const ROUNDS = 5;

export async function latency({ folder }: Bench): Promise<Answered> {
  const server = await apikeyd({
    ...ALL_ON,
    folder,
    name: 'latency',
    storeUrl: `sqlite:${folder}/latency.db`,
  });
  const message = readFileSync(server.request);
  load(server, 50_000);
  const capacity = median([1, 2, 3].map(() => load(server, 60_000)));
  const rows: (string | number)[][] = [];
  let p99AtHalf = Number.NaN;
  for (const part of [0.25, 0.5, 0.75]) {
    const rounds: number[][] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const took = await openLoop(targetOf(server), capacity * part, SECONDS, () => message);
      rounds.push([0.5, 0.99, 0.999].map((p) => took[Math.floor(took.length * p)] ?? Number.NaN));
    }
    const [p50 = 0, p99 = 0, p999 = 0] = [0, 1, 2].map((i) => median(rounds.map((round) => round[i] ?? 0)));
    if (part === 0.5) p99AtHalf = p99;
    rows.push([`${part * 100} %`, rounded(capacity * part), p50.toFixed(2), p99.toFixed(2), p999.toFixed(2)]);
    say(`  ${rows.at(-1)?.join(' ')}`);
  }
  await server.stop();
  return {
    facts: { p99AtHalfMs: p99AtHalf },
    text: `## How long a call takes

Asked in an open loop, at so much of what can be served; from when a call was due, whether it could be sent then or
not. Milliseconds, medians of ${ROUNDS} runs of ${SECONDS} s.

${table(['of capacity', 'calls/s', 'p50', 'p99', 'p99.9'], rows)}`,
  };
}

/** What do the counts of decisions (GetUsage) cost each call? */
import { closedLoop } from './load-client.ts';
import { addKeys, askFor, numbers } from './many-keys.ts';
import {
  type Answered,
  alternate,
  type Bench,
  median,
  ratio,
  rounded,
  say,
  spread,
  table,
} from './measure.ts';
import { ADMIN, ALL_ON, apikeyd, type Server, targetOf } from './servers.ts';

const CALLS = 40_000;
const ROUNDS = 9;
const WITHOUT = `--import=${new URL('without-counts.ts', import.meta.url)}`;

interface Subject {
  readonly server: Server;
  readonly keys: number;
  readonly counted: boolean;
  readonly asked: Uint32Array;
  from: number;
}

export async function rollups({ folder }: Bench): Promise<Answered> {
  const subjects: Subject[] = [];
  for (const keys of [1_000, 1_000_000])
    for (const counted of [true, false]) {
      const name = `${keys} keys, ${counted ? 'counted' : 'not counted'}`;
      const storeUrl = `sqlite:${folder}/rollups-${keys}-${counted}.db`;
      const settings: Record<string, string> = { ADMIN_BOOTSTRAP_KEY: ADMIN };
      await (await apikeyd({ ...ALL_ON, folder, storeUrl, settings, name: `fill ${name}` })).stop();
      addKeys(storeUrl.slice('sqlite:'.length), keys);
      if (!counted) settings.NODE_OPTIONS = WITHOUT;
      const server = await apikeyd({ ...ALL_ON, folder, storeUrl, settings, name });
      subjects.push({ server, keys, counted, asked: numbers(CALLS * (ROUNDS + 1), keys, 'zipf'), from: 0 });
      say(`  ${name}`);
    }
  const run = (subject: Subject) => {
    const messages = [...subject.asked.subarray(subject.from, subject.from + CALLS)].map(askFor);
    subject.from += CALLS;
    return closedLoop(targetOf(subject.server), CALLS, (i) => messages[i] ?? Buffer.alloc(0));
  };
  for (const subject of subjects) await run(subject);
  const figures = await alternate(subjects, ROUNDS, run);
  for (const { server } of subjects) await server.stop();
  const without = (keys: number) => figures[subjects.findIndex((s) => s.keys === keys && !s.counted)] ?? [];
  const rows = subjects.map(({ keys, counted }, i) => {
    const of = figures[i] ?? [];
    return [
      keys,
      counted ? 'yes' : 'no',
      rounded(median(of)),
      spread(of),
      ratio(of, without(keys)).toFixed(2),
    ];
  });
  return {
    facts: { countedVsNot: ratio(figures[0] ?? [], without(1_000)) },
    text: `## Counts of decisions

All on, embedded store, keys asked as Zipf's law has it; without counts GetUsage has no answer.

${table(['keys', 'counted', 'calls/s', 'spread', 'of not counted'], rows)}`,
  };
}

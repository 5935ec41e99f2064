/** Does it get slower with more keys? */
import { performance } from 'node:perf_hooks';
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
import { ADMIN, ALL_ON, apikeyd, residentMiB, type Server, targetOf } from './servers.ts';

interface Subject {
  readonly server: Server;
  readonly keys: number;
  readonly how: 'uniform' | 'zipf';
  readonly asked: Uint32Array;
  /** How many of them have been asked. */
  from: number;
  readonly startMs: number;
}

export async function keys({ folder, quick }: Bench): Promise<Answered> {
  const calls = quick ? 18_000 : 60_000;
  const rounds = quick ? 3 : 5;
  const frames = new Map<number, Buffer>();
  const message = (i: number) => {
    const found = frames.get(i) ?? askFor(i);
    frames.set(i, found);
    return found;
  };
  const subjects: Subject[] = [];
  for (const count of quick ? [1_000, 1_000_000] : [1_000, 100_000, 1_000_000]) {
    for (const how of quick ? (['zipf'] as const) : (['zipf', 'uniform'] as const)) {
      const storeUrl = `sqlite:${folder}/keys-${count}-${how}.db`;
      const setup = { ...ALL_ON, folder, storeUrl, settings: { ADMIN_BOOTSTRAP_KEY: ADMIN } };
      await (await apikeyd({ ...setup, name: `fill ${count} ${how}` })).stop();
      addKeys(storeUrl.slice('sqlite:'.length), count);
      const begun = performance.now();
      const server = await apikeyd({ ...setup, name: `${count} keys, ${how}` });
      const startMs = performance.now() - begun;
      subjects.push({
        server,
        keys: count,
        how,
        asked: numbers(calls * (rounds + 1), count, how),
        from: 0,
        startMs,
      });
      say(`  ${server.name}`);
    }
  }
  // Each run goes on where the last one ended: the same calls again would all be answered from the cache.
  const run = (subject: Subject) => {
    const { server, asked, from } = subject;
    subject.from += calls;
    const messages = [...asked.subarray(from, from + calls)].map(message);
    return closedLoop(targetOf(server), calls, (i) => messages[i] ?? Buffer.alloc(0));
  };
  for (const subject of subjects) await run(subject);
  const figures = await alternate(subjects, rounds, run);
  const rows = subjects.map(({ server, keys: count, how, startMs }, i) => {
    const of = figures[i] ?? [];
    const few = figures[subjects.findIndex((other) => other.keys === 1_000 && other.how === how)] ?? [];
    const part = ratio(of, few).toFixed(2);
    return [count, how, rounded(median(of)), spread(of), part, residentMiB(server), rounded(startMs)];
  });
  const zipf = (count: number) =>
    figures[subjects.findIndex((s) => s.keys === count && s.how === 'zipf')] ?? [];
  for (const { server } of subjects) await server.stop();
  return {
    facts: { millionKeysVsThousand: ratio(zipf(1_000_000), zipf(1_000)) },
    text: `## Many keys

All on, embedded store, records cached at the default size (10 000). Zipf: the k-th key as often as 1/k. Asked by a
client of our own, which costs less than h2load, so these figures are not those of other tables. What many keys cost, and
why, is told in [storage](storage.md#what-the-embedded-store-does-for-many-keys).

${table(['keys', 'asked', 'calls/s', 'spread', 'of 1 000 keys', 'resident MiB', 'start ms'], rows)}`,
  };
}

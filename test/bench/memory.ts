/** Does the memory of the server grow with the number of calls? */
import { type Answered, type Bench, table } from './measure.ts';
import { ALL_ON, apikeyd, load, residentMiB } from './servers.ts';

const STEPS = 6;

export async function memory({ folder, quick }: Bench): Promise<Answered> {
  const calls = quick ? 20_000 : 200_000;
  const server = await apikeyd({ ...ALL_ON, folder, name: 'memory', storeUrl: `sqlite:${folder}/memory.db` });
  const rows: [number, number][] = [];
  for (let step = 1; step <= STEPS; step++) {
    await load(server, calls);
    rows.push([step * calls, residentMiB(server)]);
  }
  await server.stop();
  return {
    facts: { residentGrowthMiB: (rows.at(-1)?.[1] ?? 0) - (rows[0]?.[1] ?? 0) },
    text: `## Memory

All on, embedded store, by the number of calls answered.

${table(['calls', 'resident MiB'], rows)}`,
  };
}

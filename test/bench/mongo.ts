/** What does a call cost on MongoDB, and what do several processes cost? In CPU time of the apikeyd processes alone. */
import { readFileSync } from 'node:fs';
import { MongoClient } from 'mongodb';
import { closedLoop } from './load-client.ts';
import { type Answered, alternate, type Bench, median, ratio, rounded, table } from './measure.ts';
import { ADMIN, ALL_ON, apikeyd, cpuMicros, type Server, targetOf } from './servers.ts';

const ROUNDS = 5;

interface Subject {
  readonly name: string;
  readonly servers: readonly Server[];
  readonly calls: number;
}

/** Microseconds of CPU a call, of all its processes; each is asked its part. */
async function cost({ servers, calls }: Subject): Promise<number> {
  const before = servers.map(cpuMicros);
  await Promise.all(
    servers.map((server) => {
      const message = readFileSync(server.request);
      return closedLoop(targetOf(server), calls / servers.length, () => message);
    }),
  );
  return servers.reduce((sum, server, i) => sum + cpuMicros(server) - (before[i] ?? 0), 0) / calls;
}

export async function mongo({ folder, mongoUri }: Bench): Promise<Answered> {
  const databases: string[] = [];
  const fresh = () => {
    const url = Object.assign(new URL(mongoUri), {
      pathname: `/apikeyd_bench_${process.pid}_${databases.length}`,
    });
    databases.push(url.toString());
    return url.toString();
  };
  const { request } = ALL_ON;
  const settings = { ADMIN_BOOTSTRAP_KEY: ADMIN };
  const one = async (name: string, storeUrl: string, more: object = {}) =>
    apikeyd({ folder, settings, name, storeUrl, request, ...more });
  const shared = fresh();
  const four: Server[] = [];
  for (let i = 1; i <= 4; i++) four.push(await one(`process ${i}`, shared));
  const apart: Server[] = [];
  for (let i = 1; i <= 4; i++) apart.push(await one(`apart ${i}`, fresh()));
  const uncached = { settings: { ...settings, CACHE_TTL_SECONDS: '0' } };
  const subjects: Subject[] = [
    {
      name: 'embedded, unlimited',
      servers: [await one('embedded', `sqlite:${folder}/mongo.db`)],
      calls: 30_000,
    },
    { name: 'MongoDB, cached, unlimited', servers: [await one('cached', fresh())], calls: 20_000 },
    {
      name: 'MongoDB, cached, limited',
      servers: [await one('limited', fresh(), { key: ALL_ON.key })],
      calls: 10_000,
    },
    { name: 'MongoDB, not cached', servers: [await one('uncached', fresh(), uncached)], calls: 4_000 },
    { name: '1 process of 4', servers: four.slice(0, 1), calls: 20_000 },
    { name: '2 processes of 4', servers: four.slice(0, 2), calls: 20_000 },
    { name: '4 processes of 4', servers: four, calls: 20_000 },
    { name: '1 process of 4 that share nothing', servers: apart.slice(0, 1), calls: 20_000 },
    { name: '4 processes of 4 that share nothing', servers: apart, calls: 20_000 },
  ];
  // Each process by itself: one that has been asked less is slower.
  for (const { name, servers, calls } of subjects)
    for (const server of servers) await cost({ name, servers: [server], calls });
  const figures = await alternate(subjects, ROUNDS, cost);
  for (const { servers } of subjects)
    for (const server of servers) if (server.child.exitCode === null) await server.stop();
  for (const url of databases) {
    const client = await new MongoClient(url).connect();
    await client.db().dropDatabase();
    await client.close();
  }
  const embedded = figures[0] ?? [];
  const rows = subjects.map(({ name }, i) => {
    const of = figures[i] ?? [];
    return [name, rounded(median(of) * 1000), ratio(of, embedded).toFixed(2)];
  });
  return {
    facts: {
      mongoCachedCpuVsEmbedded: ratio(figures[1] ?? [], embedded),
      fourProcessesCpuVsOne: ratio(figures[6] ?? [], figures[4] ?? []),
      fourApartCpuVsOne: ratio(figures[8] ?? [], figures[7] ?? []),
    },
    text: `## On MongoDB

CPU time of the apikeyd processes, in microseconds for 1 000 calls; the database's own is not counted. "n of 4": four
processes share a database and so many are asked, all at once; the polls of the others are their own. They share one
core and its caches, too: what that alone costs is seen from four processes that have a database each.

${table(['what', 'µs for 1 000 calls', 'of embedded'], rows)}`,
  };
}

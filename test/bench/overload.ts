/** The throughput under more load than the capacity: an open loop by h2load. */
import { spawnSync } from 'node:child_process';
import { get } from 'node:http';
import { type Answered, type Bench, median, rounded, say, table } from './measure.ts';
import { ALL_ON, apikeyd, callArgs, load, type Server } from './servers.ts';

const SECONDS = 6;
const CONNECTIONS = [10, 40, 100];
const TIMES = [1, 2, 5];

export async function overload({ folder }: Bench): Promise<Answered> {
  const server = await apikeyd({
    ...ALL_ON,
    folder,
    name: 'overload',
    storeUrl: `sqlite:${folder}/overload.db`,
  });
  load(server, 50_000);
  const capacity = median([1, 2, 3].map(() => load(server, 60_000)));
  const rows: (string | number)[][] = [];
  for (const connections of CONNECTIONS) {
    for (const times of TIMES) {
      const rate = Math.round((capacity * times) / connections);
      const before = await calls(server);
      const begun = Date.now();
      const args = ['-c', String(connections), '-m', '1000', '--rps', String(rate), '-D', String(SECONDS)];
      spawnSync('taskset', ['-c', '1', 'h2load', ...args, ...callArgs(server)]);
      const seconds = (Date.now() - begun) / 1000;
      const after = await calls(server);
      const served = (after.served - before.served) / seconds;
      const refused = (after.refused - before.refused) / seconds;
      rows.push([
        connections,
        `${times} ×`,
        rounded(served),
        rounded(refused),
        (served / capacity).toFixed(2),
      ]);
      say(`  ${rows.at(-1)?.join(' ')}`);
    }
  }
  await server.stop();
  return {
    facts: {},
    text: `## More than can be served

Offered by h2load in an open loop; the last column is the part of what is served when each stream asks one call after
the other.

${table(['connections', 'offered', 'served/s', 'refused/s', 'of capacity'], rows)}`,
  };
}

/** On a connection of its own: one that is kept may be closed by the other side at just this moment. */
function metricsOf(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ port, host: '127.0.0.1', path: '/metrics', agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () => resolve(Buffer.concat(parts).toString()));
    }).on('error', reject);
  });
}

async function calls({ metricsPort }: Server): Promise<{ served: number; refused: number }> {
  const text = await metricsOf(metricsPort);
  const of = (code: string) =>
    Number(
      new RegExp(
        `apikeyd_calls_total\\{method="apikey.v1.ApiKeyAuth/ValidateKey",code="${code}"\\} (\\d+)`,
      ).exec(text)?.[1] ?? 0,
    );
  return { served: of('OK'), refused: of('RESOURCE_EXHAUSTED') };
}

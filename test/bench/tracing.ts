/** What do traces cost? */
import { readFileSync } from 'node:fs';
import { otlpReceiver } from '../support/otlp-receiver.ts';
import { closedLoop } from './load-client.ts';
import { type Answered, alternate, type Bench, median, ratio, rounded, spread, table } from './measure.ts';
import { ALL_ON, apikeyd, cpuMicros, type Server, targetOf } from './servers.ts';

const CALLS = 40_000;
const ROUNDS = 9;

export async function tracing({ folder }: Bench): Promise<Answered> {
  const receiver = await otlpReceiver();
  const sampled = (share: number) => ({
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.endpoint,
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: String(share),
  });
  const settings = { 'no traces': {}, '1 % of the calls': sampled(0.01), 'all calls': sampled(1) };
  const servers: Server[] = [];
  for (const [name, of] of Object.entries(settings))
    servers.push(
      await apikeyd({ ...ALL_ON, folder, name, storeUrl: `sqlite:${folder}/${name}.db`, settings: of }),
    );
  const costs = new Map<Server, number[]>(servers.map((server) => [server, []]));
  // By a client in this process: h2load would keep the receiver from receiving.
  const run = async (server: Server) => {
    const message = readFileSync(server.request);
    const before = cpuMicros(server);
    const speed = await closedLoop(targetOf(server), CALLS, () => message);
    costs.get(server)?.push((cpuMicros(server) - before) / CALLS);
    return speed;
  };
  // Long enough for the exporter, which is seldom at work, to be compiled.
  for (let round = 0; round < 4; round++) for (const server of servers) await run(server);
  for (const of of costs.values()) of.length = 0;
  const figures = await alternate(servers, ROUNDS, run);
  for (const server of servers) await server.stop();
  await receiver.stop();
  const [off = []] = figures;
  const rows = servers.map((server, i) => {
    const of = figures[i] ?? [];
    const cost = median(costs.get(server) ?? []).toFixed(1);
    return [server.name, rounded(median(of)), spread(of), ratio(of, off).toFixed(2), cost];
  });
  return {
    facts: { tracingOnePercent: ratio(figures[1] ?? [], off) },
    text: `## Traces

All on, embedded store; spans go to a receiver of OTLP on the core of the load, which got ${receiver.spans.length}.

${table(['traced', 'calls/s', 'spread', 'of no traces', 'µs of processor a call'], rows)}`,
  };
}

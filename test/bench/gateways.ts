/** What does a proxy's question cost, and how much slower is a guarded route? */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { CheckRequestSchema } from '../../gen/envoy/service/auth/v3/external_auth_pb.ts';
import { startProxy, Upstream } from '../gateways/proxies.ts';
import { frame } from '../support/raw.ts';
import { isInstalled } from '../support/tools.ts';
import { type Answered, alternate, type Bench, median, ratio, rounded, table } from './measure.ts';
import { ALL_ON, apikeyd, load, loadWith, type Server } from './servers.ts';

const CALLS = 60_000;
const ROUNDS = 7;
const PER_SECOND = 500;
const SECONDS = 4;
const PARTS = [0.5, 0.99, 0.999];

const USER_AGENT = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';
const REQUEST_ID = 'd547543c-6bca-4930-bc84-5a991e191631';

interface Subject {
  readonly name: string;
  run(calls: number): number;
}

export async function gateways({ folder }: Bench): Promise<Answered> {
  const server = await apikeyd({
    ...ALL_ON,
    request: { ...ALL_ON.request, userAgent: USER_AGENT, requestId: REQUEST_ID },
    folder,
    name: 'gateways',
    storeUrl: `sqlite:${folder}/gateways.db`,
  });
  const { secret } = await server.clients.admin.createKey({
    ...ALL_ON.key,
    name: 'proxied',
    ownerId: 'bench',
    keyType: 3,
    scopes: ['traces:read'],
  });
  const all = subjects(server, secret, folder);
  for (const { run } of all) run(30_000);
  const figures = await alternate(all, ROUNDS, ({ run }) => run(CALLS));
  const [validate = []] = figures;
  const rows = all.map(({ name }, i) => {
    const of = figures[i] ?? [];
    return [name, rounded(median(of)), ratio(of, validate).toFixed(2)];
  });
  const added = isInstalled('envoy') ? await behindEnvoy(server, secret, folder) : undefined;
  await server.stop();
  return {
    facts: {
      checkToValidate: ratio(figures[1] ?? [], validate),
      httpAuthToValidate: ratio(figures[2] ?? [], validate),
      ...(added === undefined ? {} : { envoyAddsP50Ms: added.p50, envoyAddsP99Ms: added.p99 }),
    },
    text: `## Proxies that ask

The same question, all on, asked by a backend (ValidateKey), by Envoy (Check with the headers of a browser's request) and by
another proxy (\`/auth\` over HTTP/1.1).

${table(['question', 'calls/s', 'ratio'], rows)}${added === undefined ? '' : `\n\n${added.text}`}`,
  };
}

function subjects(server: Server, secret: string, folder: string): Subject[] {
  const headers = {
    ':authority': 'api.example.com',
    ':method': 'GET',
    ':path': '/traces/4bf92f3577b34da6a3ce929d0e0e4736?limit=100',
    ':scheme': 'https',
    accept: 'application/json',
    'accept-encoding': 'gzip, deflate, br',
    'accept-language': 'en-GB,en;q=0.9',
    authorization: `Bearer ${secret}`,
    'user-agent': USER_AGENT,
    'x-envoy-external-address': '10.1.2.3',
    'x-forwarded-for': '10.1.2.3',
    'x-forwarded-proto': 'https',
    'x-request-id': REQUEST_ID,
  };
  const check = create(CheckRequestSchema, {
    attributes: {
      source: { address: { socketAddress: { address: '10.1.2.3' } } },
      request: { http: { headers } },
      contextExtensions: { required_scope: 'traces:read' },
    },
  });
  const file = join(folder, 'check.request');
  writeFileSync(file, frame(toBinary(CheckRequestSchema, check)));
  const path = '/envoy.service.auth.v3.Authorization/Check';
  const auth = [
    ...['--h1', '-H', `x-apikeyd-authorization: Bearer ${server.admin}`],
    ...['-H', `authorization: Bearer ${secret}`, '-H', 'x-client-ip: 10.1.2.3'],
    ...['-H', `user-agent: ${USER_AGENT}`, '-H', `x-request-id: ${REQUEST_ID}`],
    `http://127.0.0.1:${server.port}/auth?scope=traces:read&client_ip=header`,
  ];
  return [
    { name: 'ValidateKey', run: (calls) => load(server, calls) },
    { name: 'Check', run: (calls) => load({ ...server, request: file }, calls, path) },
    { name: '`/auth`', run: (calls) => loadWith(auth, calls) },
  ];
}

/** One Envoy with the configuration of docs/gateways.md: its guarded and its unguarded route, in turn. */
async function behindEnvoy(server: Server, secret: string, folder: string) {
  const upstream = new Upstream();
  const key = server.admin;
  const around = { folder, grpc: server.port, http: server.port, upstream: await upstream.listen(), key };
  const envoy = await startProxy('envoy', around);
  spawnSync('taskset', ['-acp', '0', String(envoy.pid)]);
  const routes = ['/health', '/traces/1'];
  for (const path of routes) await paced(envoy.port, path, secret);
  const rounds: number[][][] = routes.map(() => []);
  for (let round = 0; round < 5; round++) {
    for (const [i, path] of routes.entries()) {
      const took = await paced(envoy.port, path, secret);
      rounds[i]?.push(PARTS.map((part) => took[Math.floor(took.length * part)] ?? Number.NaN));
      upstream.seen.length = 0;
    }
  }
  await envoy.stop();
  upstream.close();
  const figures = rounds.map((of) => PARTS.map((_, i) => median(of.map((round) => round[i] ?? Number.NaN))));
  const [open = [], guarded = []] = figures;
  const addedAt = (i: number) => (guarded[i] ?? Number.NaN) - (open[i] ?? Number.NaN);
  const rows = [
    ['not guarded', ...open.map((ms) => ms.toFixed(2))],
    ['guarded', ...guarded.map((ms) => ms.toFixed(2))],
  ];
  return {
    p50: addedAt(0),
    p99: addedAt(1),
    text: `Through Envoy to a service, ${PER_SECOND} requests a second, Envoy on the core of apikeyd and the service on that of
the load. Milliseconds, medians of 5 alternating runs of ${SECONDS} s.

${table(['route', 'p50', 'p99', 'p99.9'], rows)}`,
  };
}

/** Requests at a steady rate; how long each took from when it was due, sorted. */
async function paced(port: number, path: string, secret: string): Promise<number[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: 50 });
  const headers = { authorization: `Bearer ${secret}` };
  const took: number[] = [];
  const all: Promise<void>[] = [];
  const begun = performance.now();
  const ask = (due: number) =>
    new Promise<void>((resolve, reject) => {
      get({ port, path, headers, agent, host: '127.0.0.1' }, (response) => {
        if (response.statusCode !== 200) reject(new Error(`${path}: ${response.statusCode}`));
        response.resume().once('end', () => {
          took.push(performance.now() - due);
          resolve();
        });
      }).once('error', reject);
    });
  while (all.length < PER_SECOND * SECONDS) {
    const due = begun + (all.length * 1000) / PER_SECOND;
    while (performance.now() < due) await new Promise((resolve) => setImmediate(resolve));
    all.push(ask(due));
  }
  await Promise.all(all);
  agent.destroy();
  return took.sort((a, b) => a - b);
}

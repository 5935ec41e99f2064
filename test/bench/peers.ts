/** How fast are other programs on the same core? `bash test/bench/peers.sh DIR` installs them; set BENCH_PEERS=DIR. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { frame } from '../support/raw.ts';
import { tool } from '../support/tools.ts';
import { type Answered, alternate, type Bench, median, ratio, rounded, spread, table } from './measure.ts';
import { ALL_ON, apikeyd, load, ROOT } from './servers.ts';

const CALLS = 40_000;
const FGA = '127.0.0.1:18081';
const CHECK = 'openfga.v1.OpenFGAService';

export async function peers({ folder }: Bench): Promise<Answered> {
  const there = process.env.BENCH_PEERS ?? '';
  const server = await apikeyd({ ...ALL_ON, folder, name: 'peers', storeUrl: `sqlite:${folder}/peers.db` });
  const subjects: { name: string; asked: string; measure: () => number }[] = [
    {
      name: 'apikeyd, all on',
      asked: 'ValidateKey over gRPC, durable audit',
      measure: () => load(server, CALLS),
    },
    {
      name: 'rate-limiter-flexible alone',
      asked: 'consume in process, in memory: a limit and nothing else',
      measure: () => inProcess('rate-limiter-flexible', ROOT),
    },
  ];
  if (existsSync(join(there, 'node_modules/@better-auth/api-key')))
    subjects.push({
      name: 'better-auth, API-key plugin',
      asked: 'verifyApiKey in process, in memory: a key and a limit; no network, no audit',
      measure: () => inProcess('better-auth', there),
    });
  const fga = existsSync(join(there, 'bin/openfga')) ? await openFga(there, folder) : undefined;
  if (fga !== undefined)
    subjects.push({
      name: 'OpenFGA',
      asked: 'Check over gRPC of one direct tuple, in memory; no credential, limit or audit',
      measure: fga.measure,
    });
  const figures = await alternate(subjects, 5, ({ measure }) => measure());
  await server.stop();
  fga?.child.kill();
  const own = figures[0] ?? [];
  const rows = subjects.map(({ name, asked }, i) => {
    const of = figures[i] ?? [];
    return [name, asked, rounded(median(of)), spread(of), ratio(own, of).toFixed(2)];
  });
  const facts = Object.fromEntries(
    subjects.map(({ name }, i) => [`vs ${name}`, ratio(own, figures[i] ?? [])]),
  );
  return {
    facts,
    text: `## Others, on the same core

Each is asked what comes nearest; none of them does all that a call here does, so read the second column.

${table(['what', 'asked', 'calls/s', 'spread', 'apikeyd, of it'], rows)}`,
  };
}

function inProcess(peer: string, folder: string): number {
  const script = join(ROOT, 'test/bench/in-process.ts');
  const node = ['-c', '0', process.execPath, '--disable-warning=ExperimentalWarning', script, peer, folder];
  return Number(execFileSync('taskset', node, { encoding: 'utf8', env: { PATH: process.env.PATH } }));
}

/** A store with one tuple, and the call that checks it. */
async function openFga(
  there: string,
  folder: string,
): Promise<{ child: ChildProcess; measure: () => number }> {
  const off = [
    '--http-enabled=false',
    '--playground-enabled=false',
    '--metrics-enabled=false',
    '--log-level=error',
  ];
  const run = ['-c', '0', join(there, 'bin/openfga'), 'run', `--grpc-addr=${FGA}`, ...off];
  const child = spawn('taskset', run, { stdio: 'ignore', env: { PATH: process.env.PATH, GOMAXPROCS: '1' } });
  await once(child, 'spawn');
  const call = (method: string, message: object) => {
    const args = [
      '-plaintext',
      '-connect-timeout',
      '10',
      '-d',
      JSON.stringify(message),
      FGA,
      `${CHECK}/${method}`,
    ];
    return JSON.parse(execFileSync(tool('grpcurl'), args, { encoding: 'utf8' }));
  };
  const { id } = call('CreateStore', { name: 'bench' });
  const viewer = { relations: { viewer: { directly_related_user_types: [{ type: 'user' }] } } };
  const document = { type: 'document', relations: { viewer: { this: {} } }, metadata: viewer };
  call('WriteAuthorizationModel', {
    store_id: id,
    schema_version: '1.1',
    type_definitions: [{ type: 'user' }, document],
  });
  const tuple = { user: 'user:bench', relation: 'viewer', object: 'document:traces' };
  call('Write', { store_id: id, writes: { tuple_keys: [tuple] } });
  const text = (field: number, value: string | Buffer) => {
    const bytes = Buffer.from(value);
    return Buffer.concat([Buffer.from([(field << 3) | 2, bytes.length]), bytes]);
  };
  const key = Buffer.concat([text(1, tuple.user), text(2, tuple.relation), text(3, tuple.object)]);
  const file = join(folder, 'check.request');
  writeFileSync(file, frame(Buffer.concat([text(1, id), text(2, key)])));
  const headers = ['-H', 'content-type: application/grpc', '-H', 'te: trailers'];
  const h2load = ['-c', '1', 'h2load', '-n', String(CALLS), '-c', '10', '-m', '32', ...headers, '-d', file];
  const measure = () => {
    const { stdout } = spawnSync('taskset', [...h2load, `http://${FGA}/${CHECK}/Check`], {
      encoding: 'utf8',
    });
    // An error of gRPC is a success of HTTP, without data: a frame with `allowed` has 7 bytes.
    const bytes = Number(/\((\d+)\) data/.exec(stdout)?.[1]);
    if (!stdout.includes(`${CALLS} succeeded`) || bytes !== 7 * CALLS) throw new Error(stdout);
    return Number(/([\d.]+) req\/s/.exec(stdout)?.[1]);
  };
  measure();
  return { child, measure };
}

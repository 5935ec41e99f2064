/**
 * `npm run bench`: ratios in one run, alternating, medians. Servers on core 0, load on core 1.
 *   --quick    fewer and shorter rounds     --json    one JSON object as the last line
 *   --memory   1 000 000 calls, and what the process holds then     --write    rewrite docs/benchmarks.md
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { MongoClient } from 'mongodb';
import { ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { frame } from '../support/raw.ts';
import { clientsOf } from '../support/server.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const VALIDATE = '/apikey.v1.ApiKeyAuth/ValidateKey';
const flag = (name: string) => process.argv.includes(`--${name}`);
const ROUNDS = flag('quick') ? 3 : 7;
const CALLS = flag('quick') ? 20_000 : 50_000;
const say = (text: string) => void process.stderr.write(`${text}\n`);

interface Subject {
  readonly name: string;
  readonly url: string;
  readonly args: readonly string[];
  readonly child: ChildProcess;
  readonly figures: number[];
}

/** Starts a process on core 0 and waits for a line of its output. */
function pinned(
  script: string,
  args: string[],
  env: Record<string, string>,
  ready: RegExp,
): Promise<{ child: ChildProcess; output: string }> {
  const node = [
    '-c',
    '0',
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    join(ROOT, script),
    ...args,
  ];
  const child = spawn('taskset', node, {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return new Promise((resolve, reject) => {
    let output = '';
    child.once('exit', () => reject(new Error(output)));
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        if (ready.test(output)) resolve({ child, output });
      });
    }
  });
}

async function emptyHandler(folder: string): Promise<Subject> {
  const { child, output } = await pinned('test/bench/empty-handler.ts', [], {}, /^\d+\n/);
  const url = `http://127.0.0.1:${output.trim()}${VALIDATE}`;
  return { name: 'empty grpc-js handler', url, args: ['-d', join(folder, 'request')], child, figures: [] };
}

/** apikeyd with a cached record, one limit and the durable audit. */
async function apikeyd(
  name: string,
  storeUrl: string,
  folder: string,
  requestName: string,
  settings: Record<string, string> = {},
): Promise<Subject> {
  const keyFile = join(folder, `${requestName}.key`);
  const any = '127.0.0.1:0';
  const env = {
    STORE_URL: storeUrl,
    GRPC_ADDR: any,
    HTTP_ADDR: any,
    METRICS_ADDR: any,
    APIKEYD_KEY_FILE: keyFile,
    ...settings,
  };
  const { child, output } = await pinned('src/main.ts', ['serve'], env, /"msg":"serving"/);
  const port = Number(/:(\d+)","msg":"GRPC_ADDR/.exec(output)?.[1]);
  const admin = readFileSync(keyFile, 'utf8').trim();
  const clients = clientsOf({ grpc: port, http: 0 }, 'grpc', admin);
  const { secret } = await clients.admin.createKey({
    name: 'bench',
    ownerId: 'bench',
    keyType: KeyType.SERVICE,
    scopes: ['traces:read'],
    rateLimits: [{ name: 'm', limit: 1_000_000_000n, window: { seconds: 86_400n } }],
  });
  const request = create(ValidateKeyRequestSchema, {
    key: secret,
    requiredScope: 'traces:read',
    clientIp: '10.1.2.3',
  });
  const file = join(folder, requestName);
  writeFileSync(file, frame(toBinary(ValidateKeyRequestSchema, request)));
  // h2load takes headers as arguments only; this key lives as long as this run.
  return {
    name,
    url: `http://127.0.0.1:${port}${VALIDATE}`,
    args: ['-d', file, '-H', `authorization: Bearer ${admin}`],
    child,
    figures: [],
  };
}

/** Calls a second; throws when not every call succeeded. */
function load({ url, args }: Subject, calls: number): number {
  const headers = ['-H', 'content-type: application/grpc', '-H', 'te: trailers'];
  const h2load = ['-c', '1', 'h2load', '-n', String(calls), '-c', '10', '-m', '32', ...headers, ...args, url];
  const { stdout } = spawnSync('taskset', h2load, { encoding: 'utf8' });
  if (!stdout.includes(`${calls} succeeded`)) throw new Error(stdout);
  return Number(/([\d.]+) req\/s/.exec(stdout)?.[1]);
}

/** Every threshold off: nothing is counted. */
const UNCOUNTED = {
  ANOMALY_MAX_REQUESTS_PER_MINUTE: '0',
  ANOMALY_MAX_ERROR_RATIO: '0',
  ANOMALY_MAX_IPS_PER_HOUR: '0',
};

const median = (figures: readonly number[]) =>
  [...figures].sort((a, b) => a - b)[Math.floor(figures.length / 2)] ?? 0;
const residentMiB = ({ child }: Subject) => {
  const [, kib] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8')) ?? [];
  return Math.round(Number(kib) / 1024);
};

async function compare(folder: string, mongoUri: string): Promise<Subject[]> {
  const embedded = await apikeyd(
    'ValidateKey, embedded store',
    `sqlite:${folder}/apikeyd.db`,
    folder,
    'request',
  );
  const subjects = [await emptyHandler(folder), embedded];
  if (!flag('quick')) {
    const url = `sqlite:${folder}/uncounted.db`;
    subjects.push(await apikeyd('ValidateKey, anomalies off', url, folder, 'request-uncounted', UNCOUNTED));
  }
  if (mongoUri !== '')
    subjects.push(await apikeyd('ValidateKey, MongoDB protocol', mongoUri, folder, 'request-mongo'));
  for (const subject of subjects) load(subject, CALLS / 2);
  for (let round = 1; round <= ROUNDS; round++) {
    for (const subject of subjects)
      subject.figures.push(load(subject, subject.name.includes('Mongo') ? CALLS / 5 : CALLS));
    say(
      `round ${round}: ${subjects.map(({ name, figures }) => `${name} ${Math.round(figures.at(-1) ?? 0)}`).join(', ')}`,
    );
  }
  return subjects;
}

function memory(subject: Subject): number[] {
  const seen = [residentMiB(subject)];
  for (let hundreds = 1; hundreds <= 10; hundreds++) {
    load(subject, 100_000);
    seen.push(residentMiB(subject));
    say(`${hundreds}00 000 calls: ${seen.at(-1)} MiB`);
  }
  return seen;
}

function page(subjects: readonly Subject[], resident: readonly number[]): string {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
    encoding: 'utf8',
    cwd: ROOT,
  }).trim();
  const base = median(subjects[0]?.figures ?? []);
  const rows = subjects.map(({ name, figures }) => {
    const spread = `${Math.round(Math.min(...figures))} to ${Math.round(Math.max(...figures))}`;
    return `| ${name} | ${Math.round(median(figures))} | ${spread} | ${(median(figures) / base).toFixed(2)} |`;
  });
  const [, counted, uncounted] = subjects;
  const pairs = (counted?.figures ?? []).map((figure, i) => figure / (uncounted?.figures[i] ?? Number.NaN));
  const anomalies =
    uncounted?.name.includes('anomalies') === true
      ? `Anomalies on, of off, median of the rounds: ${median(pairs).toFixed(3)}.\n`
      : '';
  const flat =
    resident.length === 0
      ? ''
      : `
## Memory

Resident MiB of the embedded server after 0, 100 000, … 1 000 000 more calls: ${resident.join(', ')}.
`;
  return `# Benchmarks

Written by \`npm run bench\` at commit ${commit}, ${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.version}.
One core for the server (all its threads), one for h2load; 10 connections of 32 streams; ${ROUNDS} alternating rounds of
${CALLS} calls in one run after a warm-up. Compare ratios, not figures: machines differ and are noisy.

| what | calls/s, median | spread | of the empty handler |
|---|---|---|---|
${rows.join('\n')}

The empty handler is grpc-js with the same messages, decoded and encoded by protobuf-es, and no work. ValidateKey
authenticates its caller, counts anomalies, checks scope and allow-list on a cached record, takes from one limit, and answers after its
audit event is durable. On MongoDB the limit is one update and the event one shared insert; the database is on the
same machine and takes its share of both cores.

${anomalies}${flat}`;
}

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-bench-'));
const mongo = process.env.MONGODB_URI ?? '';
const mongoUrl =
  mongo === '' ? '' : Object.assign(new URL(mongo), { pathname: `/apikeyd_bench_${process.pid}` }).toString();
const subjects = await compare(folder, flag('quick') ? '' : mongoUrl);
const resident = flag('memory') && subjects[1] !== undefined ? memory(subjects[1]) : [];
for (const { child } of subjects) {
  child.removeAllListeners('exit');
  child.kill('SIGTERM');
  await new Promise((resolve) => child.once('exit', resolve));
}
if (mongoUrl !== '' && !flag('quick')) {
  const client = await new MongoClient(mongoUrl).connect();
  await client.db().dropDatabase();
  await client.close();
}
rmSync(folder, { recursive: true });
const text = page(subjects, resident);
if (flag('write')) writeFileSync(join(ROOT, 'docs/benchmarks.md'), text);
else process.stdout.write(text);
if (flag('json')) {
  const [base, all] = subjects.map(({ figures }) => median(figures));
  process.stdout.write(`${JSON.stringify({ allOnVsEmptyHandler: (all ?? 0) / (base ?? 1) })}\n`);
}

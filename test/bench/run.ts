/**
 * `npm run bench`: ratios in one run, alternating, medians. Servers on core 0, load on core 1.
 *   --quick    fewer and shorter rounds     --json    one JSON object as the last line
 *   --memory   1 000 000 calls, and what the process holds then     --write    rewrite docs/benchmarks.md
 *   --overload 1, 2 and 5 times of what can be served
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { MongoClient } from 'mongodb';
import { overload } from './overload.ts';
import { apikeyd, emptyHandler, load, type Subject } from './servers.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const flag = (name: string) => process.argv.includes(`--${name}`);
const ROUNDS = flag('quick') ? 3 : 7;
const CALLS = flag('quick') ? 20_000 : 50_000;
const say = (text: string) => void process.stderr.write(`${text}\n`);

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

function page(
  subjects: readonly Subject[],
  resident: readonly number[],
  overloaded: readonly string[],
): string {
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
  const flood =
    overloaded.length === 0
      ? ''
      : `
## More than can be served

Offered by h2load in an open loop; the last column is the part of what is served when each stream asks one call after the
other.

| connections | offered | served/s | refused/s | of capacity |
|---|---|---|---|---|
${overloaded.join('\n')}
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

${anomalies}${flat}${flood}`;
}

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-bench-'));
const mongo = process.env.MONGODB_URI ?? '';
const mongoUrl =
  mongo === '' ? '' : Object.assign(new URL(mongo), { pathname: `/apikeyd_bench_${process.pid}` }).toString();
const subjects = await compare(folder, flag('quick') ? '' : mongoUrl);
const overloaded = flag('overload') && subjects[1] !== undefined ? await overload(subjects[1]) : [];
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
const text = page(subjects, resident, overloaded);
if (flag('write')) writeFileSync(join(ROOT, 'docs/benchmarks.md'), text);
else process.stdout.write(text);
if (flag('json')) {
  const [base, all] = subjects.map(({ figures }) => median(figures));
  process.stdout.write(`${JSON.stringify({ allOnVsEmptyHandler: (all ?? 0) / (base ?? 1) })}\n`);
}

/**
 * `npm run bench`: ratios in one run, alternating, medians. Servers on core 0, the load on core 1.
 *   --quick            two questions, within 50 s      --json   one JSON object as the last line
 *   --only A,B         these questions                 --write  rewrite docs/benchmarks.md, or these questions' part of it
 *   --compare REF      this checkout and another commit, alternately
 * MONGODB_URI names a server for the questions about MongoDB; without it they are left out, and so are peers that are
 * not there (peers.ts says how to have them).
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { audit } from './audit.ts';
import { batch } from './batch.ts';
import { deadlines } from './deadlines.ts';
import { gateways } from './gateways.ts';
import { guards } from './guards.ts';
import { keys } from './keys.ts';
import { latency } from './latency.ts';
import { type Answered, alternate, type Bench, median, ratio, rounded, say } from './measure.ts';
import { memory } from './memory.ts';
import { mongo } from './mongo.ts';
import { overload } from './overload.ts';
import { parts } from './parts.ts';
import { peers } from './peers.ts';
import { rollups } from './rollups.ts';
import { ALL_ON, apikeyd, cpuMs, load, ROOT } from './servers.ts';
import { tracing } from './tracing.ts';
import { transports } from './transports.ts';
import { usage } from './usage.ts';
import { verify } from './verify.ts';

const QUESTIONS: Record<string, (bench: Bench) => Promise<Answered>> = {
  parts,
  deadlines,
  latency,
  keys,
  batch,
  audit,
  verify,
  usage,
  rollups,
  memory,
  transports,
  tracing,
  overload,
  gateways,
  guards,
  mongo,
  peers,
};
const PAGE = join(ROOT, 'docs/benchmarks.md');
const QUICK = ['parts', 'keys'];
const flag = (name: string) => process.argv.includes(`--${name}`);
const option = (name: string) =>
  flag(name) ? process.argv[process.argv.indexOf(`--${name}`) + 1] : undefined;

function git(...args: string[]): string {
  return execFileSync('git', args, { encoding: 'utf8', cwd: ROOT }).trim();
}

const CALLS = 60_000;

/** Two commits, alternately: has this change made it slower? Processor time is steadier than speed on a busy machine. */
async function compare(ref: string, folder: string): Promise<void> {
  const root = join(folder, 'other');
  git('worktree', 'add', '--detach', root, ref);
  try {
    symlinkSync(join(ROOT, 'node_modules'), join(root, 'node_modules'));
    const here = await apikeyd({ ...ALL_ON, folder, name: 'here', storeUrl: `sqlite:${folder}/here.db` });
    const there = await apikeyd({
      ...ALL_ON,
      folder,
      name: 'there',
      storeUrl: `sqlite:${folder}/there.db`,
      root,
    });
    for (const server of [here, there]) load(server, 30_000);
    const costs: Record<string, number[]> = { here: [], there: [] };
    const [mine = [], other = []] = await alternate([here, there], 15, async (server) => {
      const before = cpuMs(server);
      const speed = await load(server, CALLS);
      costs[server.name]?.push(((cpuMs(server) - before) * 1000) / CALLS);
      return speed;
    });
    for (const server of [here, there]) await server.stop();
    const { here: cost = [], there: otherCost = [] } = costs;
    process.stdout.write(`this checkout ${rounded(median(mine))} calls/s, ${ref} ${rounded(median(other))}: ratio ${ratio(mine, other).toFixed(3)}
processor time ${median(cost).toFixed(2)} µs a call, ${ref} ${median(otherCost).toFixed(2)}: ratio ${ratio(cost, otherCost).toFixed(3)}
`);
  } finally {
    git('worktree', 'remove', '--force', root);
  }
}

function page(answers: readonly Answered[]): string {
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.version}`;
  return `# Benchmarks

Written by \`npm run bench\` at commit ${git('rev-parse', '--short', 'HEAD')}, ${machine}. One core for the server with
all its threads, one for the load: 10 connections of 32 streams. Subjects of a table alternate in one run, after a
warm-up; figures are medians, ratios the medians of the ratios of each round. Compare ratios, not figures: machines
differ and are noisy.

"All on" is: the calling key is authenticated, scope, allow-list and address are checked on a cached record, one limit is
taken from, anomalies and metrics are counted, and the answer leaves after its audit event is durable, hash chain included.

${answers.map(({ text }) => text).join('\n\n')}
`;
}

/** The present page, with these answers in place of the earlier ones. */
function pageWith(answers: readonly Answered[]): string {
  const parts = readFileSync(PAGE, 'utf8')
    .trimEnd()
    .split(/\n\n(?=## )/);
  const headOf = (part: string) => part.split('\n', 1)[0];
  const commit = git('rev-parse', '--short', 'HEAD');
  for (const part of answers.flatMap(({ text }) => text.split(/\n\n(?=## )/))) {
    const at = parts.findIndex((one) => headOf(one) === headOf(part));
    const dated = part.replace('\n\n', `\n\nMeasured later, at commit ${commit}.\n\n`);
    parts.splice(at < 0 ? parts.length : at, at < 0 ? 0 : 1, dated);
  }
  return `${parts.join('\n\n')}\n`;
}

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-bench-'));
spawnSync('taskset', ['-cp', '1', String(process.pid)]);
try {
  const ref = option('compare');
  if (ref === undefined) {
    const asked = flag('quick') ? QUICK : (option('only')?.split(',') ?? Object.keys(QUESTIONS));
    const bench = { folder, quick: flag('quick'), mongoUri: process.env.MONGODB_URI ?? '' };
    const answers: Answered[] = [];
    for (const name of asked) {
      const question = QUESTIONS[name];
      if (question === undefined)
        throw new Error(`no question ${name}: ${Object.keys(QUESTIONS).join(', ')}`);
      if (name === 'mongo' && bench.mongoUri === '') continue;
      say(name);
      answers.push(await question(bench));
    }
    if (flag('write')) writeFileSync(PAGE, option('only') === undefined ? page(answers) : pageWith(answers));
    else process.stdout.write(page(answers));
    const facts = Object.assign({}, ...answers.map((answer) => answer.facts));
    if (flag('json')) process.stdout.write(`${JSON.stringify(facts)}\n`);
  } else await compare(ref, folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

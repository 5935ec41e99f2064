// If this fails, a guide fails for somebody who follows it literally.
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { GiteaDouble } from './support/gitea-double.ts';
import { N8nDouble } from './support/n8n-double.ts';
import { freePort, run } from './support/process.ts';
import { requires } from './support/requires.ts';
import { freshDatabase } from './support/server.ts';
import { isInstalled, type NeedName, tool } from './support/tools.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const GUARD = new URL('../clients/typescript/src/index.ts', import.meta.url).href;
const PASSWORD = 'correct-horse-4711';

interface Step {
  readonly command: string;
  /** Undefined where the page shows none. */
  readonly output?: string;
}

/** The shell blocks of a page, in order. Runbooks have tests of their own (readme.test.ts). */
function stepsOf(page: string): Step[] {
  const text = page.replaceAll(/<!-- runbook [\s\S]*?```\n(?=\n)/g, '');
  return [...text.matchAll(/^```(sh|console)\n([\s\S]*?)^```$/gm)].flatMap(([, kind, block = '']) => {
    if (kind === 'sh') return [{ command: block }];
    return block
      .split(/^\$ /m)
      .slice(1)
      .map((step) => {
        const [command = '', ...output] = step.split('\n');
        return { command, output: output.join('\n').trim() };
      });
  });
}

/** The programs of a page, by their names: a comment `file NAME` before the block. Configurations have tests of their own. */
function programsOf(page: string): [name: string, text: string][] {
  const found = page.matchAll(/^<!-- file ([\w./-]+) -->\n```(?:js|go|python)\n([\s\S]*?)^```$/gm);
  return [...found].map(([, name = '', text = '']) => [name, text]);
}

/** Output that differs from run to run. */
function steady(text: string): string {
  return text
    .replaceAll(/uid-apikey-[0-9a-f]{16}/g, 'uid-apikey-ID')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .trim();
}

/** A page's command that starts a server runs in the background here; a second start replaces the first. */
const PRELUDE = `
set -u

serve() {
  if [ -n "\${SERVER:-}" ]; then kill "$SERVER"; wait "$SERVER"; fi
  # Not the function below: the process to be ended is Node itself.
  (exec node --disable-warning=ExperimentalWarning ${ROOT}src/main.ts serve) >> server.log 2>&1 &
  SERVER=$!
  node -e '
    const [url, server] = process.argv.slice(1);
    const later = () => setTimeout(ask, 20);
    const ask = () => process.kill(server, 0) && fetch(url).then(({ ok }) => ok || later(), later);
    ask();' "http://localhost:$HTTP_PORT/readyz" "$SERVER" || exit 99
}
npx() {
  [ "$1" = apikeyd ] && shift
  if [ "$1" = serve ]; then serve; else node --disable-warning=ExperimentalWarning ${ROOT}src/main.ts "$@"; fi
}
# A backend of a page, too, goes to the background.
node() {
  case $1 in
    *.mjs)
      (exec node --disable-warning=ExperimentalWarning "$@") > backend.log 2>&1 &
      BACKEND=$!
      until grep -q listening backend.log; do kill -0 "$BACKEND" || { cat backend.log; exit 98; }; sleep 0.05; done ;;
    *) command node "$@" ;;
  esac
}
# What npm ci and npm test do is what runs this very test; npm pack and npm install are in typescript-package.test.ts.
npm() { if [ "$1" = start ]; then serve; fi; }
trap 'kill \${SERVER:-} \${BACKEND:-} $! 2> /dev/null' EXIT
`;

const DOCS = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/${name}`);
const PAGES = ['README.md', ...DOCS].filter(
  (page) => stepsOf(readFileSync(join(ROOT, page), 'utf8')).length > 0,
);

/** The programs of a page that not every machine has. */
const USED = ['awk', 'bash', 'curl', 'grep', 'grpcurl', 'redis-cli', 'sed'] as const;
/** A page that is for POSIX shells runs in one; `read -s` is bash's. */
const shellOf = (commands: string) => (/\bread -\w*s/.test(commands) ? 'bash' : 'sh');
function needsOf(page: string): NeedName[] {
  const commands = stepsOf(readFileSync(join(ROOT, page), 'utf8'))
    .map(({ command }) => command)
    .join('\n');
  const used = USED.filter((name) =>
    new RegExp(`(^|[\\s|(])${name} `, 'm').test(`${shellOf(commands)} \n${commands}`),
  );
  const servers: NeedName[] = [
    ...(commands.includes('redis://') ? ['redis-server' as const] : []),
    ...(commands.includes('mongodb://') ? ['mongodb' as const] : []),
  ];
  return [...used, ...servers];
}
/** Stands for `npm pack` and `npm install`, of which typescript-package.test.ts makes sure. */
function installGuard(folder: string): void {
  const at = join(folder, 'node_modules/@apikeyd/guard');
  mkdirSync(at, { recursive: true });
  writeFileSync(join(at, 'package.json'), '{"type":"module","exports":"./index.js"}');
  // With a deadline for a busy machine.
  const patient = `import { Guard as Real } from '${GUARD}';
export * from '${GUARD}';
export class Guard extends Real { constructor(options) { super({ deadlineMs: 20_000, ...options }); } }
`;
  writeFileSync(join(at, 'index.js'), patient);
}

/** The last lines of the server of a page: they say why a start failed. */
function logOf(folder: string): string {
  const file = join(folder, 'server.log');
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(-6).join('\n') : '';
}

const redisHere = isInstalled('redis-server');

describe('the pages', () => {
  const folders: string[] = [];
  const gitea = new GiteaDouble();
  const n8n = new N8nDouble('2.x');
  const mongo = freshDatabase('mongo', inject('mongoUri') || 'mongodb://localhost/');
  const at: Record<string, string> = {};
  let redis: ChildProcess | undefined;
  beforeAll(async () => {
    gitea.users.set('alice', { password: PASSWORD });
    n8n.users.set('alice@example.com', { id: 'id', password: PASSWORD });
    at['http://localhost:3000'] = await gitea.http.start();
    at['http://localhost:5678'] = await n8n.http.start();
    at['mongodb://localhost:27017/apikeyd?replicaSet=rs0'] = mongo.url;
    if (redisHere) {
      const port = await freePort();
      redis = spawn(tool('redis-server'), ['--port', String(port), '--save', ''], { stdio: 'ignore' });
      at['redis://localhost:6379'] = `redis://localhost:${port}`;
      at['redis-cli subscribe'] = `redis-cli -p ${port} subscribe`;
    }
  });
  afterAll(async () => {
    redis?.kill();
    await gitea.http.stop();
    await n8n.http.stop();
    if (inject('mongoUri') !== '') await mongo.drop();
    for (const folder of folders) rmSync(folder, { recursive: true });
  });

  const goes = async (page: string) => {
    const folder = mkdtempSync(join(tmpdir(), 'apikeyd-docs-'));
    folders.push(folder);
    mkdirSync(join(folder, 'bin'));
    writeFileSync(join(folder, 'bin/grpcurl'), `#!/bin/sh\nexec ${tool('grpcurl')} "$@"\n`);
    chmodSync(join(folder, 'bin/grpcurl'), 0o755);
    const [grpc, http, metrics] = [await freePort(), await freePort(), await freePort()];
    const backend = await freePort();
    const moved = Object.entries({
      ...at,
      'localhost:50051': `localhost:${grpc}`,
      'localhost:8080': `localhost:${http}`,
      'localhost:9464': `localhost:${metrics}`,
      'localhost:8000': `localhost:${backend}`,
      'listen(8000': `listen(${backend}`,
    });
    const here = (command: string) => moved.reduce((text, [from, to]) => text.replaceAll(from, to), command);
    const text = readFileSync(join(ROOT, page), 'utf8');
    const programs = programsOf(text);
    for (const [name, program] of programs) {
      const file = join(folder, name);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, here(program));
      if (/js$/.test(name)) installGuard(dirname(file));
    }
    const steps = stepsOf(text);
    // A guide whose first step does not start a server assumes a running one.
    const serves = (step: Step | undefined) => /npm start|npx apikeyd serve/.test(step?.command ?? '');
    const script = [
      PRELUDE,
      serves(steps[0]) ? '' : 'serve',
      // Every command of a block without output must succeed; a command with shown output may be denied.
      ...steps.map(({ command, output }, i) => {
        const [strict, loose] = output === undefined ? ['set -e', 'set +e'] : ['', ''];
        return `echo "@@@ ${i}"\n${strict}\n${here(command)}\n${loose}\necho; echo "@@@ end"`;
      }),
    ].join('\n');
    const shell = shellOf(steps.map(({ command }) => command).join('\n'));
    const ended = await run(shell, ['-c', script], {
      cwd: folder,
      input: `${PASSWORD}\n`.repeat(4),
      env: {
        PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
        GRPC_ADDR: `127.0.0.1:${grpc}`,
        HTTP_ADDR: `127.0.0.1:${http}`,
        HTTP_PORT: String(http),
        METRICS_ADDR: `127.0.0.1:${metrics}`,
        APIKEYD_ADDRESS: `127.0.0.1:${grpc}`,
        STORE_URL: undefined,
      },
    });
    const parts = ended.stdout.split(/^@@@ \d+\n/m).slice(1);
    for (const [i, { command, output }] of steps.entries()) {
      const [shown = '', end] = (parts[i] ?? '').split(/^@@@ end/m);
      expect(end, `${command}\n${shown}\n${ended.stderr}\n${logOf(folder)}`).toBeDefined();
      if (output !== undefined) expect(steady(shown), command).toBe(steady(output));
    }
    expect(ended.stdout + ended.stderr).not.toContain(PASSWORD);
  };
  for (const page of PAGES)
    requires(...needsOf(page)).it(`${page} goes as it says`, { timeout: 120_000 }, () => goes(page));

  it('and comments refer only to existing files', () => {
    const files = ['bin', 'clients', 'deploy', 'docs', 'examples', 'gen', 'proto', 'src', 'test', '.ci']
      .filter((folder) => existsSync(join(ROOT, folder)))
      .flatMap((folder) =>
        readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map(
          (name) => `/${folder}/${name}`,
        ),
      )
      .concat(readdirSync(ROOT).map((name) => `/${name}`));
    const exists = (name: string) => files.some((path) => path.endsWith(`/${name}`));
    // A path or a bare file name, but no part of an address.
    const named = (text: string) =>
      [...text.matchAll(/(?<![\w/.:-])[\w.][\w./-]*\.(?:md|ts|proto|json|sh)\b(?!\.)/g)].map(([name]) =>
        name.replace(/^(\.\.?\/)+/, ''),
      );
    const commentsOf = (text: string) =>
      [...text.matchAll(/\/\*\*?[\s\S]*?\*\/|^\s*\/\/.*$/gm)].map(([comment]) => comment).join('\n');
    const code = files.filter((path) => /^\/(src|test)\/.*\.ts$/.test(path));
    const wrong = [
      ...code.flatMap((path) =>
        named(commentsOf(readFileSync(ROOT + path, 'utf8'))).map((name) => [path, name]),
      ),
      ...['/README.md', ...DOCS.map((name) => `/${name}`)].flatMap((path) =>
        // Commands name files of their reader.
        named(readFileSync(ROOT + path, 'utf8').replaceAll(/^```[\s\S]*?^```$/gm, '')).map((name) => [
          path,
          name,
        ]),
      ),
    ].filter(([, name = '']) => !exists(name));
    expect(wrong.map((pair) => pair.join(': '))).toEqual([]);
  });

  it('link only to existing targets', () => {
    const missing = ['README.md', 'examples/README.md', ...DOCS].flatMap((page) =>
      [...readFileSync(join(ROOT, page), 'utf8').matchAll(/\]\((?!https?:)([^)#]+)/g)]
        .map(([, link = '']) => new URL(link, `file://${ROOT}${page}`).pathname)
        .filter((path) => !existsSync(path))
        .map((path) => `${page}: ${path}`),
    );
    expect(missing).toEqual([]);
  });
});

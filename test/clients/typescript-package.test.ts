// If this fails, the package that backends install lacks a file, a type or a dependency.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKey } from '../rpc/cases.ts';
import { run } from '../support/process.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { ROOT } from '../support/tools.ts';

const PROGRAM = `
import { createServer } from 'node:http';
import { expressGuard, Guard, verdictOf } from '@apikeyd/guard';

const guard = new Guard({ address: process.env.APIKEYD_ADDRESS ?? '', keyFile: 'guard.key', deadlineMs: 20_000 });
const traces = expressGuard(guard, { scope: 'traces:read' });
const server = createServer((request, response) => {
  void traces(request, response, () => response.end(verdictOf(request).key?.id));
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify(server.address())));
`;
/** The dependencies of the package, packed too, so that the test needs no registry. */
const DEPENDENCIES = ['@bufbuild/protobuf', '@connectrpc/connect', '@connectrpc/connect-node'];

/** Node.js of this run, and others that the machine has. */
async function nodes(): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const node = join(folder, 'node');
    const { code, stdout } = await run(node, ['--version']).catch(() => ({ code: 1, stdout: '' }));
    const version = stdout.trim();
    if (code === 0 && Number(/^v(\d+)/.exec(version)?.[1]) >= 20 && !found.has(version))
      found.set(version, node);
  }
  return found;
}

describe('the package for TypeScript', () => {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-package-'));
  const project = join(folder, 'project');
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let good: string;
  beforeAll(async () => {
    const from = ['clients/typescript', ...DEPENDENCIES.map((name) => join('node_modules', name))];
    const sources = from.map((path) => `./${path}`);
    await npm(['pack', '--silent', '--pack-destination', folder, ...sources], ROOT);
    const tarballs = readdirSync(folder).map((name) => join(folder, name));
    mkdirSync(project);
    writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
    await npm(['install', '--offline', '--no-audit', '--no-fund', '--silent', ...tarballs], project);
    server = await startServer(database.url, database.folder);
    const { secret } = await makeKey(server.clients('grpc'), { scopes: ['apikeys:validate'] });
    writeFileSync(join(project, 'guard.key'), secret);
    good = (await makeKey(server.clients('grpc'))).secret;
    writeFileSync(join(project, 'server.ts'), PROGRAM);
    writeFileSync(join(project, 'server.js'), PROGRAM);
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
    rmSync(folder, { recursive: true });
  });

  const npm = async (args: string[], cwd: string) => {
    const { code, stdout, stderr } = await run('npm', args, { cwd });
    expect(code, stdout + stderr).toBe(0);
  };

  it('is packed and installed as the page for authors of services says', () => {
    const page = readFileSync(join(ROOT, 'docs/service-authors.md'), 'utf8');
    const tarball = readdirSync(folder).find((name) => name.startsWith('apikeyd-'));
    expect(page).toContain(`\nnpm pack ./clients/typescript\nnpm install --prefix my-backend ./${tarball}\n`);
  });

  it('contains the build, and neither tests nor sources', () => {
    const all = readdirSync(join(project, 'node_modules/@apikeyd/guard'), {
      recursive: true,
      encoding: 'utf8',
    });
    expect(all.filter((name) => /(?<!\.d)\.ts$/.test(name))).toEqual([]);
    expect(all).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'package.json']));
    // From apikeyd only the generated code, and of that only the files for a question.
    const tops = new Set(all.flatMap((name) => /^dist\/(\w+\/\w+)/.exec(name)?.[1] ?? []));
    expect([...tops].sort()).toEqual(['clients/typescript', 'gen/apikey', 'gen/google']);
    expect(all.filter((name) => name.includes('admin'))).toEqual([]);
  });

  it('has types that a strict project accepts', async () => {
    const types = join(ROOT, 'node_modules/@types');
    const compilerOptions = { strict: true, noEmit: true, module: 'nodenext', target: 'es2022' };
    const config = { compilerOptions: { ...compilerOptions, typeRoots: [types], types: ['node'] } };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(config));
    const { stdout } = await run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', project]);
    expect(stdout).toBe('');
  });

  it('guards a handler in an empty project, on each installed Node.js', async () => {
    const found = await nodes();
    expect([...found.keys()]).toContain(process.version);
    for (const [version, node] of found) {
      const { child, port } = await started(node);
      try {
        const status = async (headers: Record<string, string>) =>
          (await fetch(`http://127.0.0.1:${port}/`, { headers })).status;
        expect(await status({ 'x-api-key': good }), version).toBe(200);
        expect(await status({}), version).toBe(401);
        expect(await status({ 'x-api-key': 'wrong' }), version).toBe(401);
      } finally {
        child.kill();
      }
    }
  });

  async function started(node: string): Promise<{ child: ChildProcess; port: number }> {
    const env = { PATH: process.env.PATH, APIKEYD_ADDRESS: `127.0.0.1:${server.running.ports.grpc}` };
    const child = spawn(node, ['server.js'], { cwd: project, env });
    const output: string[] = [];
    child.stderr.on('data', (chunk: Buffer) => output.push(chunk.toString()));
    const port = await new Promise<number>((resolve, reject) => {
      child.once('exit', () => reject(new Error(output.join(''))));
      child.stdout.once('data', (chunk: Buffer) => resolve(JSON.parse(chunk.toString()).port));
    });
    return { child, port };
  }
});

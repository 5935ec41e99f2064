// If this fails, backends in Go cannot guard themselves, or do so otherwise than the other languages.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { MisbehavingServer } from '../support/misbehaving-server.ts';
import { run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { ROOT, tool } from '../support/tools.ts';
import { guardedBackend, protosIn, trackedFiles } from './backend.ts';
import { localVectorsIn } from './local-vectors.ts';

const LIBRARY = join(ROOT, 'clients/go');
const MODULE = 'example.com/apikeyd/clients/go';
const TIMEOUT = { timeout: 300_000 };

/** The module cache must have all: a test that fetches is a test that fails when the network does. */
const OFFLINE = { GOFLAGS: '-mod=readonly', GOPROXY: 'off', GOTOOLCHAIN: 'local' };

async function go(cwd: string, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await run(tool('go'), args, { cwd, env: OFFLINE });
  expect(stdout + stderr).toBe('');
  expect(code).toBe(0);
}

requires('go').describe('the library in Go', () => {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-go-'));
  const tests = join(folder, 'tests');
  const servers = [new MisbehavingServer(), new MisbehavingServer(), new MisbehavingServer()];
  beforeAll(async () => {
    await go(LIBRARY, 'test', '-c', '-ldflags=-s -w', '-o', tests, '.');
  }, TIMEOUT.timeout);
  afterAll(async () => {
    await Promise.all(servers.map((server) => server.stop()));
    rmSync(folder, { recursive: true, force: true });
  });

  it('passes its own tests and the conformance vectors, by HTTP, calls and streams', TIMEOUT, async () => {
    const addresses = await Promise.all(servers.map((server) => server.start()));
    const env = {
      APIKEYD_PROTOS: await protosIn(folder),
      APIKEYD_CONFORMANCE: join(ROOT, 'clients/conformance'),
      APIKEYD_MISBEHAVING: JSON.stringify(addresses),
      ...localVectorsIn(folder),
    };
    const { code, stdout } = await run(tests, ['-test.v', '-test.timeout=60s'], { cwd: LIBRARY, env });
    expect(failuresIn(stdout)).toBe('');
    expect(code).toBe(0);
    expect(stdout).not.toContain('--- SKIP');
    const { vectors } = JSON.parse(readFileSync(join(ROOT, 'clients/conformance/vectors.json'), 'utf8'));
    const ofHttp = stdout.match(/--- PASS: TestConformance\/http\//g) ?? [];
    expect(ofHttp).toHaveLength(vectors.length);
  });

  it('guards a handler in an empty project, imported as a module', TIMEOUT, async () => {
    // The content of a module's archive: the files in git.
    for (const path of await trackedFiles('clients/go')) {
      const to = join(folder, 'module', path);
      mkdirSync(dirname(to), { recursive: true });
      cpSync(join(LIBRARY, path), to);
    }
    const project = join(folder, 'project');
    mkdirSync(project);
    const needs = `require ${MODULE} v0.0.0\nreplace ${MODULE} => ../module\n`;
    const ofModule = readFileSync(join(LIBRARY, 'go.mod'), 'utf8').replace(/^module .*\n/, '');
    writeFileSync(join(project, 'go.mod'), `module example.com/empty\n${ofModule}${needs}`);
    cpSync(join(LIBRARY, 'go.sum'), join(project, 'go.sum'));
    cpSync(join(ROOT, 'examples/go/main.go'), join(project, 'main.go'));
    await go(project, 'build', '-ldflags=-s -w', '-o', 'backend', '.');
    await guardedBackend(join(project, 'backend'), []);
  });
});

/** The output of `go test -v` about failed tests. */
function failuresIn(output: string): string {
  const lines = output.split('\n');
  return lines
    .filter((line, at) => / {4}\w+_test\.go:|--- FAIL/.test(line) || /_test\.go/.test(lines[at - 1] ?? ''))
    .join('\n');
}

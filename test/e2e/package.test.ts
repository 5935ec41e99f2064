// If this fails, people who install the package get a program that does not start.
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../support/process.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const ANY_PORT = { GRPC_ADDR: '127.0.0.1:0', HTTP_ADDR: '127.0.0.1:0', METRICS_ADDR: '127.0.0.1:0' };

describe('the packed program', () => {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-package-'));
  // The npm that came with this machine; inside, the program finds the Node that it needs by itself.
  const { PATH, HOME, npm_config_registry } = process.env;
  const env = { PATH, HOME, npm_config_registry, npm_config_update_notifier: 'false' };
  const npx = (...args: string[]) => run('npx', ['--offline', ...args], { cwd: folder, env });
  beforeAll(async () => {
    const packed = await run('npm', ['pack', '--pack-destination', folder], { cwd: ROOT, env });
    expect(packed.code, packed.stderr).toBe(0);
    const tarball = packed.stdout.trim().split('\n').at(-1) ?? '';
    await run('npm', ['init', '-y'], { cwd: folder, env });
    const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', `./${tarball}`];
    const installed = await run('npm', install, { cwd: folder, env });
    expect(installed.code, installed.stderr).toBe(0);
  }, 300_000);
  afterAll(() => rmSync(folder, { recursive: true }));

  it('contains the compiled program, the protos, the licence, README and CHANGELOG, and nothing else', () => {
    const filesBelow = (below: string) =>
      readdirSync(below, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => relative(below, join(parentPath, name)));
    const compiled = (room: string) =>
      filesBelow(join(ROOT, room))
        .filter((name) => !name.endsWith('.d.ts') && !name.startsWith('console/'))
        .map((name) => `dist/${room}/${name.replace(/\.ts$/, '.js')}`);
    const protos = filesBelow(join(ROOT, 'proto')).filter((name) => name.endsWith('.proto'));
    expect(filesBelow(join(folder, 'node_modules/apikeyd')).sort()).toEqual(
      [
        ...['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json', 'bin/apikeyd.js', 'dist/package.json'],
        ...[...compiled('src'), ...compiled('gen')],
        ...protos.map((name) => `proto/${name}`),
        ...filesBelow(join(ROOT, 'build/console')).map((name) => `build/console/${name}`),
      ].sort(),
    );
  });

  it('can be published by npm without a warning, except for the missing login', async () => {
    const tried = await run('npm', ['publish', '--dry-run', '--loglevel=warn'], { cwd: ROOT, env });
    expect(tried.code, tried.stderr).toBe(0);
    const warnings = tried.stderr.split('\n').filter((line) => line.startsWith('npm warn'));
    expect(warnings.filter((line) => !line.includes('requires you to be logged in'))).toEqual([]);
  });

  it('runs the main job in an empty folder', async () => {
    const server = spawn(join(folder, 'node_modules/.bin/apikeyd'), ['serve'], {
      cwd: folder,
      env: { PATH: `${join(folder, 'node_modules/.bin')}:${process.env.PATH}`, ...ANY_PORT },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let output = '';
    try {
      const port = await new Promise<string>((resolve, reject) => {
        server.once('exit', () => reject(new Error(output)));
        server.stderr.on('data', (chunk: Buffer) => {
          output += chunk.toString();
          const address = /127\.0\.0\.1:(\d+)","msg":"GRPC_ADDR/.exec(output)?.[1];
          if (address !== undefined && output.includes('"msg":"serving"')) resolve(address);
        });
      });
      const address = ['--address', `127.0.0.1:${port}`];
      const page = await fetch(/http:\/\/127\.0\.0\.1:\d+\/console\//.exec(output)?.[0] ?? '');
      expect([page.status, await page.text()]).toEqual([200, expect.stringContaining('<title>apikeyd')]);
      const made = await npx(
        'apikeyd',
        'api-key',
        'create',
        'ci',
        '--key-type',
        'user',
        '--scope',
        'a:b',
        '--quiet',
        ...address,
      );
      expect(made.code, made.stderr).toBe(0);
      const asked = await run('npx', ['--offline', 'apikeyd', 'api-key', 'validate', '-', ...address], {
        cwd: folder,
        env,
        input: made.stdout,
      });
      expect(asked.stdout).toMatch(/^VALID\n/);
    } finally {
      server.removeAllListeners('exit');
      server.kill('SIGTERM');
      await new Promise((resolve) => server.once('exit', resolve));
    }
  });

  it('uses its own Node.js when that of the machine is too old', async () => {
    // The oldest that a machine of today has: it runs the launcher, not the program.
    const old = await run('sh', ['-c', 'command -v node'], {
      env: { PATH: withoutOurs(process.env.PATH ?? '') },
    });
    const command = old.stdout.trim() || process.execPath;
    const shown = await run(command, [join(folder, 'node_modules/apikeyd/bin/apikeyd.js'), '--version'], {
      env,
    });
    expect(shown).toMatchObject({ code: 0, stdout: '0.1.0\n', stderr: '' });
    const wrong = await run(command, [join(folder, 'node_modules/apikeyd/bin/apikeyd.js'), 'nonsense'], {
      env,
    });
    expect(wrong.code).toBe(2);
    // npm 12 leaves out the script that puts the packaged Node in its place.
    const packaged = join(folder, 'node_modules/node/bin/node');
    rmSync(packaged);
    const without = await run(command, [join(folder, 'node_modules/apikeyd/bin/apikeyd.js'), '--version'], {
      env,
    });
    if (command !== process.execPath)
      expect(without).toMatchObject({ code: 78, stderr: expect.stringContaining('--allow-scripts=node') });
  });
});

function withoutOurs(path: string): string {
  return path
    .split(':')
    .filter((each) => !each.startsWith(ROOT) && each !== dirname(process.execPath))
    .join(':');
}

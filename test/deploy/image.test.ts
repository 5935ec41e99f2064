// If this fails, the image does not build, starts as root, loses calls at SIGTERM, writes where it must not, lacks a part of the program.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { readConfig } from '../../src/config.ts';
import { decide, decisionOf, makeKey } from '../rpc/cases.ts';
import { freePort, run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { clientsOf } from '../support/server.ts';
import { ROOT, tool } from '../support/tools.ts';

/** The instructions after the last FROM, continued lines joined. */
const stages = readFileSync(join(ROOT, 'Containerfile'), 'utf8')
  .replaceAll(/^#.*\n/gm, '')
  .replaceAll(/\\\n\s*/g, '')
  .split(/^FROM /m);
const build = stages.at(-2) ?? '';
const last = (stages.at(-1) ?? '').split('\n').map((line) => line.trim());
const of = (instruction: string) =>
  last.filter((line) => line.startsWith(`${instruction} `)).map((line) => line.slice(instruction.length + 1));

describe('Containerfile', () => {
  it('takes both base images from arguments', () => {
    expect(stages.map((stage) => stage.split('\n')[0]).slice(1)).toEqual([
      `\${BUILDER} AS build`,
      `\${RUNTIME}`,
    ]);
  });

  it('runs as uid 65532 with node as process 1, which gets SIGTERM', () => {
    expect(of('USER')).toEqual(['65532:65532']);
    expect(of('STOPSIGNAL')).toEqual(['SIGTERM']);
    expect(of('VOLUME')).toEqual(['/data']);
    const [entry = ''] = of('ENTRYPOINT');
    expect(JSON.parse(entry)).toEqual([
      'node',
      '--disable-warning=ExperimentalWarning',
      `/app/${packageJson.bin.apikeyd}`,
    ]);
  });

  it('has no RUN in the last stage, whose base has no shell', () => {
    expect(of('RUN')).toEqual([]);
  });

  it('has every file of the package that a server reads', () => {
    const copied = of('COPY').map((line) => line.split(' ').slice(0, -1).join(' '));
    const folders = packageJson.files.filter((name) => !/\.(md|proto)$/.test(name));
    expect(folders.filter((name) => !copied.some((line) => line.endsWith(`/app/${name}`)))).toEqual([]);
    expect(build).toContain('npm run build');
    expect(packageJson.scripts).toHaveProperty('build');
  });

  it('has only known settings in its environment, with values within bounds', () => {
    const env = Object.fromEntries(
      of('ENV')
        .flatMap((line) => line.split(/\s+/))
        .map((pair) => pair.split('=')),
    );
    const { PATH, SQLITE_TMPDIR, ...settings } = env;
    expect([PATH, SQLITE_TMPDIR]).toEqual(['/nodejs/bin:/usr/local/bin:/usr/bin:/bin', '/data']);
    const config: Record<string, unknown> = readConfig(settings);
    expect(Object.keys(settings).filter((name) => config[name] !== settings[name])).toEqual([]);
  });
});

/** Of the compressed layers that are ours: everything but the base. */
const MOST_MIB = 120;

/** Every file below a folder with the time of its last change. */
function filesOf(folder: string): Map<string, number> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  const files = names.filter((name) => !/^(data|proc|dev)(\/|$)/.test(name));
  return new Map(
    files.flatMap((name): [string, number][] => {
      const stat = statSync(join(folder, name), { throwIfNoEntry: false });
      return stat === undefined ? [] : [[name, stat.ctimeMs]];
    }),
  );
}

// It takes minutes, and a network with packages: npm run test:long, or npm run image:test.
if (process.env.LONG)
  requires('buildah', 'umoci', 'unshare', 'bash').describe('the image', () => {
    const folder = mkdtempSync(join(tmpdir(), 'apikeyd-image-'));
    const bundle = join(folder, 'bundle');
    const data = join(folder, 'data');
    let server: ChildProcess | undefined;
    let log = '';
    let ports = { grpc: 0, http: 0 };
    beforeAll(async () => {
      const built = await run(tool('bash'), [join(ROOT, 'deploy/image/build.sh')]);
      expect(built.code, built.stdout + built.stderr).toBe(0);
    }, 1_800_000);
    afterAll(() => {
      server?.kill('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    });

    it('does the main job as uid 65532 on a read-only root, and writes below /data only', {
      timeout: 300_000,
    }, async () => {
      ports = { grpc: await freePort(), http: await freePort() };
      const settings = [
        `GRPC_ADDR=127.0.0.1:${ports.grpc}`,
        `HTTP_ADDR=127.0.0.1:${ports.http}`,
        `METRICS_ADDR=127.0.0.1:${await freePort()}`,
        'LOG_FORMAT=json',
      ];
      const unpacked = await run(tool('umoci'), [
        'unpack',
        '--image',
        join(ROOT, 'build/image/oci:latest'),
        bundle,
      ]);
      expect(unpacked.code, unpacked.stderr).toBe(0);
      const before = filesOf(join(bundle, 'rootfs'));
      server = spawn(tool('bash'), [join(ROOT, 'deploy/image/run.sh'), bundle, data, ...settings], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      await new Promise<void>((resolve, reject) => {
        server?.once('exit', () => reject(new Error(log)));
        for (const stream of [server?.stdout, server?.stderr])
          stream?.on('data', (chunk: Buffer) => {
            log += chunk;
            if (log.includes('"msg":"serving"')) resolve();
          });
      });
      const adminKey = readFileSync(join(data, 'admin.key'), 'utf8').trim();
      const clients = clientsOf(ports, 'grpc', adminKey);
      const { secret, id } = await makeKey(clients);
      expect(await decisionOf(clients, secret)).toBe('VALID');
      await clients.admin.revokeKey({ id, reason: 1 });
      expect(await decisionOf(clients, secret)).toBe('REVOKED');
      expect((await fetch(`http://127.0.0.1:${ports.http}/console/`)).status).toBe(200);
      expect(statSync(join(data, 'apikeyd.db')).uid).toBe(65_532);
      const after = filesOf(join(bundle, 'rootfs'));
      expect([...after].filter(([name, time]) => before.get(name) !== time)).toEqual([]);
    });

    it('answers the calls that it has accepted after SIGTERM under load, and ends within 10 s', {
      timeout: 60_000,
    }, async () => {
      const clients = clientsOf(ports, 'grpc', readFileSync(join(data, 'admin.key'), 'utf8').trim());
      const { secret } = await makeKey(clients);
      let [answered, stopping] = [0, false];
      const loads = Array.from({ length: 16 }, async () => {
        while (!stopping) {
          await decide(clients, secret);
          answered++;
        }
      });
      while (answered < 500) await new Promise((resolve) => setImmediate(resolve));
      stopping = true;
      const begun = performance.now();
      const ended = new Promise((resolve) => server?.once('exit', (code) => resolve(code)));
      // Process 1 of the namespace: the only child of the one that made it.
      const { pid = 0 } = server ?? {};
      const child = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
      process.kill(child, 'SIGTERM');
      await Promise.all(loads);
      expect(await ended, log).toBe(0);
      expect(performance.now() - begun).toBeLessThan(10_000);
      expect(log).toContain('"msg":"stopped"');
    });

    it('is small apart from Node.js', () => {
      const blobs = join(ROOT, 'build/image/oci/blobs/sha256');
      const bytes = readdirSync(blobs).reduce((sum, name) => sum + statSync(join(blobs, name)).size, 0);
      expect(bytes / 2 ** 20).toBeLessThan(MOST_MIB);
    });
  });

requires('hadolint').it('has no problem that hadolint finds', {}, async () => {
  const { code, stdout } = await run(tool('hadolint'), [join(ROOT, 'Containerfile')]);
  expect([code, stdout]).toEqual([0, '']);
});

// If this fails, a newcomer does not see what to do after `npm start`, or doctor calls a healthy server broken.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { shownStore } from '../../src/server/neighbour.ts';
import { apikeyd, run, type ServerProcess, spawnServer } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase } from '../support/server.ts';
import { tool } from '../support/tools.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const ANY_PORT = { GRPC_ADDR: '127.0.0.1:0', HTTP_ADDR: '127.0.0.1:0', METRICS_ADDR: '127.0.0.1:0' };

describe('the first minutes', () => {
  const database = freshDatabase('sqlite', '');
  let server: ServerProcess;
  beforeAll(async () => {
    server = await spawnServer(database.url, database.folder);
  });
  afterAll(async () => {
    await server.end('SIGTERM');
    await database.drop();
  });
  /** Settings that name the addresses of the server that runs. */
  const sameAddresses = () => ({
    STORE_URL: database.url,
    GRPC_ADDR: `127.0.0.1:${server.ports.grpc}`,
    HTTP_ADDR: `127.0.0.1:${server.ports.http}`,
    METRICS_ADDR: `127.0.0.1:${server.ports.metrics}`,
  });
  const doctor = (env: Record<string, string>) => apikeyd(['doctor'], { env });

  it('doctor recognises the running server, and reports no problem', async () => {
    const { code, stdout } = await doctor(sameAddresses());
    expect(code, stdout).toBe(0);
    const served = `is served by apikeyd ${packageJson.version} on ${database.url}`;
    for (const [name, address] of Object.entries(sameAddresses()).slice(1))
      expect(stdout).toMatch(new RegExp(`^ok +${name} +${address} ${served}$`, 'm'));
  });

  it('doctor distinguishes a server on another store, and another program', async () => {
    const other = await doctor({ ...sameAddresses(), STORE_URL: `sqlite:${database.folder}/other.db` });
    expect(other.code).toBe(1);
    expect(other.stdout).toMatch(/^WRONG +GRPC_ADDR +.*, and not on sqlite:.*other\.db$/m);
    const stranger = createServer((_request, response) => response.end('apikeyd_serving 1\n'));
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    const taken = `127.0.0.1:${(stranger.address() as AddressInfo).port}`;
    const beside = await doctor({ ...sameAddresses(), METRICS_ADDR: taken });
    expect(beside.code).toBe(1);
    expect(beside.stdout).toMatch(
      new RegExp(`^WRONG +METRICS_ADDR +${taken} is taken by another program$`, 'm'),
    );
    stranger.close();
  });

  it('doctor shows the store without its user, password and options', () => {
    expect(shownStore('mongodb://me:hun?t@er2@a:1,b:2/keys?replicaSet=rs0&x=y')).toBe(
      'mongodb://a:1,b:2/keys',
    );
    expect(shownStore('mongodb+srv://me@host/keys')).toBe('mongodb+srv://host/keys');
    expect(shownStore('sqlite:/data/a@b?.db')).toBe('sqlite:/data/a@b?.db');
  });

  it('prints no next steps when it logs JSON', () => {
    for (const line of server.output().trimEnd().split('\n')) expect(() => JSON.parse(line)).not.toThrow();
  });

  requires('script').it('a server at a terminal prints the next steps once', {}, async () => {
    const keyFile = join(database.folder, 'terminal.key');
    const command = `${process.execPath} --disable-warning=ExperimentalWarning ${MAIN} serve`;
    const { stdout } = await run(tool('script'), ['-qec', command, '/dev/null'], {
      env: {
        ...ANY_PORT,
        STORE_URL: `sqlite:${database.folder}/terminal.db`,
        APIKEYD_KEY_FILE: keyFile,
        LOG_FORMAT: undefined,
        CI: undefined,
      },
      killWhen: (output) => output.includes('Ctrl-C'),
    });
    const shown = stdout.replaceAll('\r', '');
    expect(
      shown.match(/Ready: gRPC on 127\.0\.0\.1:(\d+), HTTP with JSON on 127\.0\.0\.1:\d+/g),
    ).toHaveLength(1);
    const [, port] = /Ready: gRPC on 127\.0\.0\.1:(\d+)/.exec(shown) ?? [];
    expect(shown).toContain(`The admin key is in ${keyFile}, which only you can read.`);
    expect(shown).toContain(`--scope traces:read --address 127.0.0.1:${port} --key-file ${keyFile}\n`);
    expect(shown.trimEnd()).toMatch(/docs\/quick-start\.md, .*Ctrl-C ends the server\.$/);
  });

  it('audit list filters by each form of a method name, by caller and by time', async () => {
    const env = {
      APIKEYD_ADDRESS: `127.0.0.1:${server.ports.grpc}`,
      APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
    };
    const audit = (...args: string[]) => apikeyd(['audit', 'list', '--json', ...args], { env });
    await apikeyd(['api-key', 'validate', '-'], { env, input: 'x\n' });
    const events = async (...args: string[]) => {
      const { stdout, stderr } = await audit(...args);
      expect(stderr).toBe('');
      const lines = stdout.split('\n').filter((line) => line !== '');
      return lines.map((line) => JSON.parse(line) as { method: string; callerKeyId: string });
    };
    for (const name of ['ValidateKey', 'ApiKeyAuth/ValidateKey', 'apikey.v1.ApiKeyAuth/ValidateKey'])
      expect((await events('--method', name)).map(({ method }) => method)).toEqual([
        'apikey.v1.ApiKeyAuth/ValidateKey',
      ]);
    const [{ callerKeyId: caller = '' } = {}] = await events('--method', 'ValidateKey');
    expect((await events('--caller', caller)).every((event) => event.callerKeyId === caller)).toBe(true);
    expect(await events('--caller', 'uid-apikey-0000000000000000')).toEqual([]);
    expect(await events('--until', '2001-01-01T00:00:00Z')).toEqual([]);
    expect(await events('--since', '2999-01-01T00:00:00Z')).toEqual([]);
    expect((await events('--since', '1h')).length).toBeGreaterThan(1);
    const unknown = await audit('--method', 'Validate');
    expect(unknown).toMatchObject({ code: 1, stdout: '' });
    expect(unknown.stderr).toMatch(
      /no method has this name; known are .*ApiKeyAuth\/ValidateKey, .*ApiKeyAdmin\/RevokeKey/,
    );
    expect((await audit('--since', 'yesterday')).stderr).toContain(
      'a time like 2027-01-31T12:00:00Z, or how long ago',
    );
  });
});

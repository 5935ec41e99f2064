// If this fails, people at a terminal see rows that break, colours in their pipes, or no way on from an error.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GiteaDouble } from '../support/gitea-double.ts';
import { N8nDouble } from '../support/n8n-double.ts';
import { apikeyd, type RunOptions, run, type ServerProcess, spawnServer } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase } from '../support/server.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const ESCAPE = '\x1b';
const ANY_PORT = { GRPC_ADDR: '127.0.0.1:0', HTTP_ADDR: '127.0.0.1:0', METRICS_ADDR: '127.0.0.1:0' };
const PASSWORD = 'correct-horse-4711';

describe('apikeyd at a terminal', () => {
  const database = freshDatabase('sqlite', '');
  const gitea = new GiteaDouble();
  const n8n = new N8nDouble('2.x');
  let server: ServerProcess;
  const said: string[] = [];
  const cli = async (args: string[], options: RunOptions = {}) => {
    const ended = await apikeyd(args, {
      ...options,
      env: {
        APIKEYD_ADDRESS: `127.0.0.1:${server.ports.grpc}`,
        APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
        ...options.env,
      },
    });
    said.push(ended.stderr);
    return ended;
  };
  /** Runs a command on a real terminal with the given number of columns. */
  const onTerminal = async (args: string, columns: number, env: Record<string, string> = {}) => {
    const command = `stty cols ${columns}; ${process.execPath} --disable-warning=ExperimentalWarning ${MAIN} ${args}`;
    const ended = await run('script', ['-qec', command, '/dev/null'], {
      env: {
        APIKEYD_ADDRESS: `127.0.0.1:${server.ports.grpc}`,
        APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
        TERM: 'xterm',
        CI: undefined,
        NO_COLOR: undefined,
        FORCE_COLOR: undefined,
        ...env,
      },
    });
    return ended.stdout.replaceAll('\r', '');
  };
  beforeAll(async () => {
    gitea.users.set('alice', { password: PASSWORD, otp: ['424242', '535353', '646464'] });
    n8n.users.set('a@example.com', { id: 'id', password: PASSWORD });
    const settings = { GITEA_URL: await gitea.http.start(), N8N_URL: await n8n.http.start() };
    server = await spawnServer(database.url, database.folder, settings);
    const scopes = Array.from({ length: 12 }, (_, i) => ['--scope', `area-${i}:read`]).flat();
    await cli(['api-key', 'create', 'a key with quite a long name', '--key-type', 'user', ...scopes]);
  });
  afterAll(async () => {
    await server.end('SIGTERM');
    await gitea.http.stop();
    await n8n.http.stop();
    for (const secret of [
      PASSWORD,
      ...gitea.tokens.map(({ sha1 }) => sha1),
      ...n8n.keys.map((key) => key.secret),
    ])
      for (const text of [server.output(), ...said]) expect(text).not.toContain(secret);
    await database.drop();
  });

  const atTerminal = requires('script');
  const fits = async (columns: number) => {
    const shown = await onTerminal('api-key list', columns, { NO_COLOR: '1' });
    const lines = shown.trimEnd().split('\n');
    expect(lines.length).toBe(3);
    // Below the narrowest of all its columns together nothing is cut any more.
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(Math.max(columns, 90));
    expect(shown.match(/uid-apikey-[0-9a-f]{16}/g)).toHaveLength(2);
    if (columns === 120) expect(shown).toContain('a key with quite a long name');
  };
  for (const columns of [60, 80, 120])
    atTerminal.it(`fits its tables into ${columns} columns, and never cuts ids`, {}, () => fits(columns));

  atTerminal.it('uses colours only on a terminal without NO_COLOR', {}, async () => {
    expect(await onTerminal('api-key list', 200)).toContain(`${ESCAPE}[32mACTIVE`);
    expect(await onTerminal('api-key list', 200, { NO_COLOR: '1' })).not.toContain(ESCAPE);
    expect((await cli(['api-key', 'list'])).stdout).not.toContain(ESCAPE);
  });

  atTerminal.it('shows the progress of long work only on a terminal', {}, async () => {
    expect(await onTerminal('audit verify', 100)).toMatch(/intact: \d+ events/);
    const rows = Array.from({ length: 3_000 }, (_, i) => `k${i},user,a:b`);
    const path = join(database.folder, 'many.csv');
    writeFileSync(path, ['name,type,scopes', ...rows].join('\n'));
    expect(await onTerminal(`api-key create --quiet --from ${path}`, 100)).toMatch(
      /creating [█░]{24} \d+ of 3000/,
    );
    expect((await cli(['audit', 'verify'])).stderr).toBe('');
  });

  it('audit tail prints each event once, without its own calls', async () => {
    const marked = (n: number) => ['api-key', 'get', `uid-apikey-000000000000000${n}`];
    let shown = '';
    const killWhen = (output: string) => {
      shown = output;
      return output.includes('0000000000000002');
    };
    const tailing = cli(['audit', 'tail'], { killWhen });
    let ended = false;
    void tailing.then(() => {
      ended = true;
    });
    // It prints only events after its start, whenever that is.
    let asked = 0;
    for (; !shown.includes('0000000000000001'); asked++) await cli(marked(1));
    // The second one comes at least a look later.
    while (!ended) await cli(marked(2));
    const { stdout } = await tailing;
    const lines = stdout.split('\n').filter((line) => line.includes('0000000000000001'));
    expect(lines.length).toBeLessThanOrEqual(asked);
    expect(new Set(lines).size).toBe(lines.length);
    expect(stdout).not.toContain('ListAuditEvents');
  });

  it('creates, lists, verifies and deletes tokens of Gitea with the password on standard input', async () => {
    const login = ['--login', 'alice'];
    const input = `${PASSWORD}\n424242\n`;
    const next = { input: `${PASSWORD}\n535353\n` };
    const made = await cli(['gitea', 'create', 'ci', '--scope', 'read:user', '--quiet', ...login], { input });
    expect(made).toMatchObject({ code: 0, stdout: expect.stringMatching(/^[0-9a-f]{40}\n$/) });
    expect(await cli(['gitea', 'verify', '-'], { input: made.stdout })).toMatchObject({
      code: 0,
      stdout: 'ALIVE\n',
    });
    const listed = await cli(['gitea', 'list', ...login], next);
    expect(listed.stdout).toMatch(/ci +both +20\S+ +ALIVE +…[0-9a-f]{8} +read:user/);
    const { tokens } = JSON.parse((await cli(['gitea', 'list', '--json', ...login], { input })).stdout);
    expect(await cli(['gitea', 'delete', tokens[0].id, ...login], next)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('several with commas'),
    });
    const both = { input: `${PASSWORD}\n424242,646464\n` };
    expect(await cli(['gitea', 'delete', tokens[0].id, ...login], both)).toMatchObject({ code: 0 });
    expect(await cli(['gitea', 'verify', '-'], { input: made.stdout })).toMatchObject({
      code: 1,
      stdout: 'DEAD\n',
    });
    const wrong = await cli(['gitea', 'list', ...login], { input: 'wrong-password-99\n' });
    expect(wrong).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/REMOTE_UNAUTHENTICATED[\s\S]*next: check --login/),
    });
    expect(await cli(['gitea', 'list', ...login])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('GITEA_PASSWORD'),
    });
    expect(await cli(['gitea', 'list'], { input })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--login'),
    });
  });

  it('creates, lists, verifies and deletes API keys of n8n with the password in the environment', async () => {
    const env = { N8N_LOGIN_ID: 'a@example.com', N8N_PASSWORD: PASSWORD };
    const made = await cli(['n8n', 'create', 'ci', '--scope', 'workflow:read', '--json'], { env });
    const { apiKey, secret } = JSON.parse(made.stdout);
    expect(await cli(['n8n', 'verify', '-'], { input: secret })).toMatchObject({
      code: 0,
      stdout: 'ALIVE\n',
    });
    expect((await cli(['n8n', 'list'], { env })).stdout).toMatch(/ci +both/);
    n8n.keys = [];
    expect(await cli(['n8n', 'verify', '-'], { input: secret })).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/^UNKNOWN: n8n refuses it, .*: add a login\n$/),
    });
    expect(await cli(['n8n', 'verify', '-'], { input: secret, env })).toMatchObject({ stdout: 'DEAD\n' });
    const gone = await cli(['n8n', 'delete', apiKey.id], { env });
    expect(gone).toMatchObject({
      code: 0,
      stdout: `${apiKey.id} is not in the list of n8n any more: only marked as deleted here\n`,
    });
    await cli(['n8n', 'list'], { env });
    expect(await cli(['n8n', 'list'], { env })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('next: try again in 42 s'),
    });
  });

  it('prints JSON also from the commands of the server', async () => {
    const { settings } = JSON.parse((await cli(['config', '--json'])).stdout);
    expect(settings).toContainEqual({ name: 'LOG_LEVEL', value: 'info', origin: 'default' });
    const { findings } = JSON.parse(
      // Not the default ports, where a server of one's own may run.
      (await cli(['doctor', '--json'], { env: { STORE_URL: database.url, ...ANY_PORT } })).stdout,
    );
    expect(findings).toContainEqual(expect.objectContaining({ what: 'GRPC_ADDR', ok: true }));
  });

  it('says how to fix an error', async () => {
    expect((await cli(['api-key', 'get', 'uid-apikey-0000000000000000'])).stderr).toContain(
      'next: see "apikeyd api-key list"',
    );
    const file = join(database.folder, 'wrong.key');
    writeFileSync(file, 'audit_v1_0000000000000000000000\n');
    expect((await cli(['api-key', 'list', '--key-file', file])).stderr).toMatch(
      /CREDENTIAL_INVALID[\s\S]*next: .*apikeyd recover/,
    );
  });
});

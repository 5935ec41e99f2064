// If this fails, backends in another language cannot ask, or the examples that people copy are wrong.
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { makeKey } from '../rpc/cases.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { type NeedName, tool } from '../support/tools.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

/** How each is started. */
const EXAMPLES: { name: string; library?: true; needs?: NeedName[]; command: string; args: string[] }[] = [
  {
    name: 'typescript',
    library: true,
    command: process.execPath,
    args: ['--disable-warning=ExperimentalWarning', join(ROOT, 'examples/typescript/guard.ts')],
  },
  {
    name: 'python',
    library: true,
    needs: ['python'],
    command: tool('python'),
    args: [join(ROOT, 'examples/python/guard.py')],
  },
  { name: 'go', library: true, needs: ['go-guard'], command: tool('go-guard'), args: [] },
  { name: 'java', needs: ['java', 'guard.jar'], command: 'java', args: ['-jar', tool('guard.jar')] },
];

/** @param library the backend uses a library of clients/, which says no more than docs/gateways.md */
const guardCases = (command: string, args: readonly string[], library: boolean) => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let guard: ChildProcess;
  let output = '';
  let port = 0;
  const secrets: string[] = [];
  beforeAll(async () => {
    server = await startServer(database.url, database.folder);
    const { secret } = await makeKey(server.clients('grpc'), { scopes: ['apikeys:validate'] });
    const keyFile = join(database.folder, 'guard.key');
    writeFileSync(keyFile, `${secret}\n`, { mode: 0o600 });
    secrets.push(secret);
    const address = `127.0.0.1:${server.running.ports.grpc}`;
    const env = {
      PATH: process.env.PATH,
      APIKEYD_ADDRESS: address,
      APIKEYD_KEY_FILE: keyFile,
      PORT: '0',
      PYTHONPATH: join(ROOT, 'clients/python/src'),
    };
    guard = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    await new Promise<void>((resolve, reject) => {
      guard.once('error', reject);
      guard.once('exit', () => reject(new Error(output)));
      for (const stream of [guard.stdout, guard.stderr]) {
        stream?.on('data', (chunk: Buffer) => {
          output += chunk.toString();
          port = Number(/listening on (\d+)/.exec(output)?.[1] ?? 0);
          if (port > 0) resolve();
        });
      }
    });
  });
  afterAll(async () => {
    guard.removeAllListeners('exit');
    guard.kill();
    await server.stop();
    await database.drop();
    for (const secret of secrets) expect(output).not.toContain(secret);
  });

  const ask = async (secret?: string) => {
    const headers: Record<string, string> = secret === undefined ? {} : { authorization: `Bearer ${secret}` };
    const response = await fetch(`http://127.0.0.1:${port}/traces`, { headers });
    return { status: response.status, headers: response.headers, body: await response.json() };
  };
  const key = async (fields: object = {}) => {
    const made = await makeKey(server.clients('grpc'), fields);
    secrets.push(made.secret);
    return made;
  };

  it('admits a valid key, with the state of its limit', async () => {
    const limit = { name: 'minute', limit: 3n, window: { seconds: 60n } };
    // The first call of a program that has just started may take longer than its deadline.
    const unknown = 'audit_v1_0000000000000000000000';
    await vi.waitFor(async () => expect((await ask(unknown)).status).toBe(401), HANGS_MS);
    const { secret } = await key({ rateLimits: [limit] });
    const left = [];
    for (let i = 0; i < 3; i++) {
      const { headers } = await ask(secret);
      left.push(
        library ? /;r=(\d+);/.exec(headers.get('ratelimit') ?? '')?.[1] : headers.get('ratelimit-remaining'),
      );
    }
    expect(left).toEqual(['2', '1', '0']);
    const { status, headers } = await ask(secret);
    expect(status).toBe(429);
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(50);
  });

  it('denies requests without a key, and with a wrong, a revoked or an insufficient one', async () => {
    expect((await ask()).status).toBe(401);
    expect(await ask('audit_v1_0000000000000000000000')).toMatchObject({
      status: 401,
      body: { error: library ? 'invalid_token' : 'NOT_FOUND' },
    });
    const { secret: other } = await key({ scopes: ['logs:read'] });
    const error = library ? 'insufficient_scope' : 'INSUFFICIENT_SCOPE';
    expect(await ask(other)).toMatchObject({ status: 403, body: { error } });
    const { secret, id } = await key();
    expect((await ask(secret)).status).toBe(200);
    await server.clients('grpc').admin.revokeKey({ id, reason: 1 });
    const revoked = library
      ? { status: 401, body: { error: 'invalid_token' } }
      : { status: 403, body: { error: 'REVOKED' } };
    expect(await ask(secret)).toMatchObject(revoked);
  });

  it('denies requests without a decision, and says when to retry', async () => {
    const limit = { name: 'day', limit: 1n, window: { seconds: 86_400n } };
    const { secret } = await key();
    const { admin } = server.clients('grpc');
    // The backend's own key is over its limit: an error with RetryInfo, and not a decision.
    const keys = await admin.listKeys({ pageSize: 100 });
    const guardKey = keys.keys.find((each) => each.scopes.includes('apikeys:validate'));
    await admin.updateKey({
      key: { id: guardKey?.id ?? '', rateLimits: [limit] },
      updateMask: { paths: ['rate_limits'] },
    });
    await ask(secret);
    const { status, headers } = await ask(secret);
    expect(status).toBe(503);
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(1_000);
    await admin.updateKey({ key: { id: guardKey?.id ?? '' }, updateMask: { paths: ['rate_limits'] } });
    expect((await ask(secret)).status).toBe(200);
  });
};

for (const { name, library, needs = [], command, args } of EXAMPLES)
  requires(...needs).describe(`the guard in ${name}`, () => guardCases(command, args, library === true));

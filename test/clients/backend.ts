import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { makeKey } from '../rpc/cases.ts';
import { run } from '../support/process.ts';
import { freshDatabase, startServer } from '../support/server.ts';
import { ROOT, tool } from '../support/tools.ts';

/** The files below a folder that are in git, by their paths from there. */
export async function trackedFiles(folder: string): Promise<string[]> {
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const { stdout } = await run('git', args, { cwd: join(ROOT, folder) });
  return stdout.split('\0').filter((path) => path !== '');
}

/**
 * Starts a backend beside a real apikeyd: a good key is let in with its limits, a revoked one and none are not.
 * @param command must listen as the programs of examples/ do
 */
export async function guardedBackend(command: string, args: readonly string[]): Promise<void> {
  const database = freshDatabase('sqlite', '');
  const server = await startServer(database.url, database.folder);
  const clients = server.clients('grpc');
  const keyFile = join(database.folder, 'guard.key');
  writeFileSync(keyFile, (await makeKey(clients, { scopes: ['apikeys:validate'] })).secret, { mode: 0o600 });
  const APIKEYD_ADDRESS = `127.0.0.1:${server.running.ports.grpc}`;
  const env = { PATH: process.env.PATH, APIKEYD_ADDRESS, APIKEYD_KEY_FILE: keyFile, PORT: '0' };
  const backend = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  try {
    const port = await new Promise<number>((resolve, reject) => {
      let said = '';
      backend.once('error', reject);
      backend.once('exit', () => reject(new Error(said)));
      for (const stream of [backend.stdout, backend.stderr])
        stream.on('data', (chunk: Buffer) => {
          said += chunk.toString();
          const [, found] = /listening on (\d+)/.exec(said) ?? [];
          if (found !== undefined) resolve(Number(found));
        });
    });
    const ask = (headers: Record<string, string>) => fetch(`http://127.0.0.1:${port}/traces`, { headers });
    const limit = { name: 'minute', limit: 3n, window: { seconds: 60n } };
    const { secret, id } = await makeKey(clients, { rateLimits: [limit] });
    const good = await ask({ 'x-api-key': secret });
    expect([good.status, await good.json()]).toEqual([200, { traces: [], key: id }]);
    expect(good.headers.get('ratelimit')).toMatch(/^"minute";r=2;t=\d+$/);
    expect((await ask({})).status).toBe(401);
    await clients.admin.revokeKey({ id, reason: 1 });
    expect((await ask({ authorization: `Bearer ${secret}` })).status).toBe(401);
  } finally {
    backend.removeAllListeners('exit');
    backend.kill();
    await server.stop();
    await database.drop();
  }
}

/** The protos as they are now, for a client to compare with its generated code. @returns a FileDescriptorSet's path */
export async function protosIn(folder: string): Promise<string> {
  const path = join(folder, 'protos.binpb');
  const args = ['build', join(ROOT, 'proto'), '--as-file-descriptor-set', '-o', path];
  expect(await run(tool('buf'), args)).toMatchObject({ code: 0 });
  return path;
}

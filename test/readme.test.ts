// If this fails, a runbook for a rotation does not work as written, or README grows until nobody reads it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run, spawnServer } from './support/process.ts';
import { requires } from './support/requires.ts';
import { freshDatabase } from './support/server.ts';
import { tool } from './support/tools.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const read = (page: string) => readFileSync(join(ROOT, page), 'utf8');

/** A command of a page, against a server on other ports. */
function shell(command: string, ports: { grpc: number; http: number }): string {
  return command
    .replaceAll('npx apikeyd', `node --disable-warning=ExperimentalWarning ${ROOT}src/main.ts`)
    .replaceAll('grpcurl', tool('grpcurl'))
    .replaceAll('localhost:50051', `localhost:${ports.grpc}`)
    .replaceAll('localhost:8080', `localhost:${ports.http}`);
}

describe('README.md', () => {
  it('has at most 130 lines', () => {
    expect(read('README.md').split('\n').length).toBeLessThanOrEqual(131);
  });
});

describe('docs/rotation.md', () => {
  for (const name of ['planned', 'emergency', 'gradual'])
    requires(...(name === 'planned' ? (['grpcurl'] as const) : [])).it(
      `the ${name} runbook ends the old secret and leaves the new one VALID`,
      {},
      async () => {
        const database = freshDatabase('sqlite', '');
        const server = await spawnServer('sqlite:./data/apikeyd.db', 'data', {}, database.folder);
        try {
          const address = `127.0.0.1:${server.ports.grpc}`;
          const here = (command: string, env = {}) =>
            run('sh', ['-euc', shell(command, server.ports)], {
              cwd: database.folder,
              env: { APIKEYD_ADDRESS: address, ...env },
            });
          const key = 'npx apikeyd api-key create it --key-type service --scope a:b --owner me --json';
          const made = JSON.parse((await here(key)).stdout) as { key: { id: string }; secret: string };
          const block =
            read('docs/rotation.md').split(`<!-- runbook ${name} -->\n\`\`\`sh\n`)[1]?.split('```')[0] ?? '';
          const ended = await here(block, { ID: made.key.id });
          expect(ended).toMatchObject({ code: 0, stderr: '' });
          const decision = async (secret: string) =>
            (await here(`printf %s ${secret} | npx apikeyd api-key validate - || true`)).stdout.split(
              '\n',
            )[0];
          expect(await decision(made.secret)).toBe('ROTATED');
          const last = name === 'emergency' ? 'newest.txt' : 'new.txt';
          expect(await decision(`"$(cat ${last})"`)).toBe('VALID');
          if (name === 'emergency') expect(await decision('"$(cat new.txt)"')).toBe('ROTATED');
          if (name === 'planned') expect(ended.stdout).toContain('ROTATION_MODE_MANUAL');
        } finally {
          await server.end('SIGTERM');
          await database.drop();
        }
      },
    );
});

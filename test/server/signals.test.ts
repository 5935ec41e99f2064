// If this fails, a process that gets a signal during its start is killed with the calls that it has accepted.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { freshDatabase } from '../support/server.ts';
import { ROOT } from '../support/tools.ts';

const database = freshDatabase('sqlite', '');
afterAll(() => database.drop());

it('after SIGTERM during its start, the process stops in order', async () => {
  const anyPort = '127.0.0.1:0';
  const child = spawn(process.execPath, [join(ROOT, 'src/main.ts'), 'serve'], {
    env: {
      PATH: process.env.PATH,
      STORE_URL: database.url,
      APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
      ...{ GRPC_ADDR: anyPort, HTTP_ADDR: anyPort, METRICS_ADDR: anyPort },
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (chunk: Buffer) => {
    // The first of three listeners: much of the start is still to come.
    if (!log.includes('listening') && chunk.includes('listening')) child.kill('SIGTERM');
    log += chunk;
  });
  const ended = await new Promise((resolve) =>
    child.once('close', (code, signal) => resolve([code, signal])),
  );
  expect(ended, log).toEqual([0, null]);
  expect(log).toContain('"msg":"finishing the calls under way"');
  expect(log).toContain('"msg":"stopped"');
});

// If this fails, a full disk under the log or a reader of it that is gone or stalled ends the server, or holds it up.
import { spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { mintSecret } from '../../src/keys/secret.ts';
import { LogSink } from '../../src/server/log-sink.ts';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { freePort } from '../support/process.ts';
import { clientsOf, freshDatabase } from '../support/server.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const told = (dropped: number) => `dropped ${dropped}\n`;

describe('the log sink', () => {
  it('writes line after line, one write at a time', async () => {
    const written: string[] = [];
    let done = (_error: unknown) => {};
    const sink = new LogSink((text, over) => {
      written.push(text);
      done = over;
    }, told);
    sink.write('a\n');
    sink.write('b\n');
    sink.write('c\n');
    expect(written).toEqual(['a\n']);
    done(undefined);
    expect(written).toEqual(['a\n', 'b\nc\n']);
    const drained = sink.drained(60_000);
    done(undefined);
    await drained;
    expect(sink.dropped).toBe(0);
  });

  it('counts the lines that a full disk drops, and reports them with the next line that is written', () => {
    const written: string[] = [];
    let full = true;
    const sink = new LogSink((text, done) => {
      if (!full) written.push(text);
      done(full ? new Error('ENOSPC') : undefined);
    }, told);
    sink.write('a\n');
    sink.write('b\n');
    full = false;
    sink.write('c\n');
    sink.write('d\n');
    expect(written).toEqual(['dropped 2\nc\n', 'd\n']);
    expect(sink.dropped).toBe(2);
  });

  it('buffers a bounded part for a stalled reader, and counts the dropped rest', () => {
    const written: string[] = [];
    let done = (_error: unknown) => {};
    const sink = new LogSink((text, over) => {
      written.push(text);
      done = over;
    }, told);
    const line = `${'x'.repeat(1023)}\n`;
    for (let i = 0; i < 3_000; i++) sink.write(line);
    expect(sink.dropped).toBe(3_000 - 1_024);
    done(undefined);
    done(undefined);
    sink.write('late\n');
    expect(written[1]?.startsWith(`dropped ${3_000 - 1_024}\n`)).toBe(true);
    expect(written.at(-1)).toBe('late\n');
  });
});

describe('a server', () => {
  const database = freshDatabase('sqlite', '');
  afterAll(() => database.drop());

  it.each(['a full disk', 'a reader that is gone', 'a reader that is stalled'])(
    'with %s under its log serves on',
    async (what) => {
      const [grpc, http, metrics] = [await freePort(), await freePort(), await freePort()];
      const admin = mintSecret();
      const child = spawn(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', join(ROOT, 'src/main.ts'), 'serve'],
        {
          env: {
            PATH: process.env.PATH,
            STORE_URL: `sqlite:${database.folder}/${what.replaceAll(' ', '-')}.db`,
            GRPC_ADDR: `127.0.0.1:${grpc}`,
            HTTP_ADDR: `127.0.0.1:${http}`,
            METRICS_ADDR: `127.0.0.1:${metrics}`,
            ADMIN_BOOTSTRAP_KEY: admin,
            LOG_LEVEL: 'debug',
          },
          stdio: ['ignore', 'ignore', what === 'a full disk' ? openSync('/dev/full', 'w') : 'pipe'],
        },
      );
      const exited = new Promise((resolve) => child.once('exit', resolve));
      if (what === 'a reader that is gone') child.stderr?.destroy();
      child.stderr?.pause();
      const page = async (port: number, path: string): Promise<string> =>
        fetch(`http://127.0.0.1:${port}${path}`).then(
          (answer) => answer.text(),
          () => '',
        );
      while ((await page(http, '/readyz')) !== 'ready\n') expect(child.exitCode).toBeNull();
      const clients = clientsOf({ grpc, http }, 'grpc', admin);
      const { id, secret } = await makeKey(clients);
      await clients.admin.rotateKey({ id });
      // At debug level, each use of the old secret is a line.
      const batch = { requests: Array.from({ length: 100 }, () => ({ key: secret })) };
      const dropped = async () =>
        Number(/^apikeyd_log_lines_dropped_total (\d+)/m.exec(await page(metrics, '/metrics'))?.[1]);
      while (!((await dropped()) > 0)) await clients.auth.batchValidateKeys(batch);
      expect(await decisionOf(clients, secret)).toBe('VALID');
      child.kill('SIGTERM');
      expect(await exited).toBe(0);
    },
  );
});

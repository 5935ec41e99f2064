// If this fails, the console shows an admin something that is not so, or loses work, when a key ends, a server starts again,
// a clock is off, a file is large, or alerts come by the thousand.
import { hash, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inLanes } from '../e2e/load.ts';
import { decide, makeKey } from '../rpc/cases.ts';
import { spawnServer } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { clientsOf, startServer, type TestServer } from '../support/server.ts';
import { launch, nothingWrong, open, signIn, visit } from './browser.ts';

const DAY_MS = 86_400_000;

requires('chromium').describe('the console', () => {
  let folder: string;
  let server: TestServer;
  let browser: Browser;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-console-'));
    server = await startServer(`sqlite:${folder}/apikeyd.db`, folder);
    browser = await launch();
  });
  afterAll(async () => {
    await browser?.close();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const http = () => server.running.ports.http;
  const clients = () => server.clients('grpc');

  it('ends the session when its key expires during work', async () => {
    const { id, secret } = await makeKey(clients(), { scopes: ['apikeys:*'] });
    const seen = await visit(browser, http());
    await signIn(seen, secret);
    await open(seen, 'Keys');
    await seen.page.getByRole('button', { name: 'New key' }).click();
    await seen.page.getByLabel('Name').fill('half');
    await clients().admin.expireKey({ id });
    await seen.page.getByText('Your key no longer works').waitFor();
    await seen.context.close();
  });

  it.each([-3, 3])(
    'shows the last day of the server to a browser whose clock is %i days off',
    async (days) => {
      const { secret } = await makeKey(clients(), { name: `off by ${days}` });
      for (let i = 0; i < 7; i++) await decide(clients(), secret);
      const seen = await visit(browser, http());
      await seen.page.clock.setFixedTime(Date.now() + days * DAY_MS);
      await signIn(seen, server.adminKey);
      await open(seen, 'Keys');
      await seen.page.getByRole('link', { name: `off by ${days}` }).click();
      await seen.page.getByRole('button', { name: 'Revoke …' }).click();
      await seen.page.getByText('It was asked about 7 times').waitFor();
      nothingWrong(seen);
      await seen.context.close();
    },
  );

  it('imports a whole file of 5 MiB', async () => {
    const lines: string[] = [];
    const before = (await clients().admin.getStats({})).keysByStatus.ACTIVE ?? 0n;
    const run = randomUUID();
    // Long lines: the keys are not to be counted, the bytes are.
    const scopes = Array.from({ length: 30 }, (_, i) => `a-long-name-of-a-resource-${i}:read`);
    const lineOf = (i: number) =>
      JSON.stringify({
        ...{ name: `n${i}`, owner_id: 'bulk', key_type: 'user', scopes },
        key_hash: hash('sha256', `${run} ${i}`),
      });
    for (let i = 0, size = 0; ; i++) {
      size += lineOf(i).length + 1;
      if (size > 5 << 20) break;
      lines.push(lineOf(i));
    }
    const seen = await visit(browser, http());
    await signIn(seen, server.adminKey);
    await open(seen, 'Keys');
    await seen.page.getByRole('button', { name: 'Import …' }).click();
    const choose = (chosen: readonly string[]) =>
      seen.page.getByLabel('File').setInputFiles({
        ...{ name: 'k.jsonl', mimeType: 'text/plain' },
        buffer: Buffer.from(chosen.join('\n')),
      });
    await choose([...lines, lineOf(lines.length), lineOf(lines.length + 1)]);
    await seen.page.getByText('The file has more than 5 MiB').waitFor();
    await choose(lines);
    await seen.page.getByRole('button', { name: 'Check the file' }).click();
    await seen.page.getByText('all good').waitFor();
    await seen.page.getByRole('button', { name: 'Import', exact: true }).click();
    await seen.page.getByText('keys are here now').waitFor();
    nothingWrong(seen);
    await seen.context.close();
    const after = (await clients().admin.getStats({})).keysByStatus.ACTIVE ?? 0n;
    expect(Number(after - before)).toBe(lines.length);
  });

  it('says how many keys of a file were imported when the server goes down meanwhile', async () => {
    const lines = Array.from({ length: 1_001 }, (_, i) =>
      JSON.stringify({
        ...{ name: `n${i}`, owner_id: 'half', key_type: 'user', scopes: ['a:b'] },
        key_hash: `f${i.toString(16).padStart(63, '0')}`,
      }),
    );
    const seen = await visit(browser, http());
    await signIn(seen, server.adminKey);
    await open(seen, 'Keys');
    await seen.page.getByRole('button', { name: 'Import …' }).click();
    const buffer = Buffer.from(lines.join('\n'));
    await seen.page.getByLabel('File').setInputFiles({ name: 'k.jsonl', mimeType: 'text/plain', buffer });
    await seen.page.getByRole('button', { name: 'Check the file' }).click();
    await seen.page.getByText('all good').waitFor();
    let calls = 0;
    await seen.page.route('**/ImportKeys', (route) => (++calls === 1 ? route.continue() : route.abort()));
    await seen.page.getByRole('button', { name: 'Import', exact: true }).click();
    await seen.page.getByText('1000 of 1001 keys are here').waitFor();
    await seen.context.close();
  });

  it('stays usable while thousands of alerts arrive, and keeps the newest', async () => {
    const seen = await visit(browser, http());
    await signIn(seen, server.adminKey);
    await open(seen, 'Alerts');
    const addresses = Array.from(
      { length: process.env.LONG ? 2_000 : 500 },
      (_, i) => `10.77.${i >> 8}.${i & 255}`,
    );
    const asking = clients();
    await inLanes(addresses.length, 20, async (i) => {
      for (let bad = 0; bad < 5; bad++) await decide(asking, 'bad', { clientIp: addresses[i] ?? '' });
    });
    const last = '10.99.99.99';
    for (let bad = 0; bad < 5; bad++) await decide(asking, 'bad', { clientIp: last });
    await seen.page.getByText(`${last} is locked out`).waitFor();
    const alerts = seen.page.getByRole('table', { name: 'alerts' }).getByRole('row');
    expect(await alerts.count()).toBeLessThanOrEqual(201);
    await open(seen, 'Overview');
    await seen.page.getByText('active keys').waitFor();
    nothingWrong(seen);
    await seen.context.close();
  });

  it('continues by itself when the server restarts', async () => {
    const place = mkdtempSync(join(tmpdir(), 'apikeyd-console-'));
    const url = `sqlite:${place}/apikeyd.db`;
    const first = await spawnServer(url, place);
    const key = readFileSync(join(place, 'admin.key'), 'utf8').trim();
    const seen = await visit(browser, first.ports.http);
    await signIn(seen, key);
    await open(seen, 'Keys');
    await seen.page.getByRole('button', { name: 'New key' }).click();
    await seen.page.getByLabel('Name').fill('across a restart');
    await seen.page.getByLabel('Owner').fill('me');
    await seen.page.getByLabel('Scopes').fill('a:b');
    await first.end('SIGTERM');
    await seen.page.getByRole('button', { name: 'Create key' }).click();
    await seen.page.getByText('The server cannot be reached').waitFor();
    const again = await spawnServer(url, place, { HTTP_ADDR: `127.0.0.1:${first.ports.http}` });
    const admin = clientsOf(again.ports, 'grpc', key).admin;
    await seen.page.getByRole('button', { name: 'Create key' }).click();
    await seen.page.getByText('This secret is shown once.').waitFor();
    const { keys } = await admin.listKeys({ query: 'across a restart' });
    expect(keys.length).toBe(1);
    // The alerts are followed again, too.
    for (let bad = 0; bad < 5; bad++)
      await decide(clientsOf(again.ports, 'grpc', key), 'bad', { clientIp: '198.51.100.9' });
    await seen.page.getByRole('button', { name: 'Copy' }).click();
    await open(seen, 'Alerts');
    await seen.page.getByText('198.51.100.9 is locked out').waitFor();
    await seen.context.close();
    await again.end('SIGTERM');
    rmSync(place, { recursive: true, force: true });
  });
});

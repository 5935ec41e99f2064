// If this fails, a page of the console cannot be used by everybody, or has become too large to load.
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import AxeBuilder from '@axe-core/playwright';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decide, makeKey } from '../rpc/cases.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { ROOT } from '../support/tools.ts';
import { launch, nothingWrong, open, signIn, visit } from './browser.ts';

const MAX_GZIP_BYTES = 100 << 10;
/** Where the pictures of docs/console.md go: only when they are asked for. */
const PICTURES = process.env.CONSOLE_PICTURES === 'true' ? join(ROOT, 'docs/console') : undefined;

describe('the built console', () => {
  it('is at most 100 KiB to download', () => {
    const folder = join(ROOT, 'build/console');
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
      /\.\w+$/.test(name),
    );
    const sizes = files.map((name) => gzipSync(readFileSync(join(folder, name))).length);
    expect(sizes.length).toBeGreaterThan(2);
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(MAX_GZIP_BYTES);
  });
});

/** Says at which widths a page must be scrolled sideways. */
async function tooWide(page: Page): Promise<string[]> {
  const size = page.viewportSize() ?? { width: 1440, height: 900 };
  const faults: string[] = [];
  for (const width of [390, 1024]) {
    await page.setViewportSize({ ...size, width });
    const over = await page.evaluate(
      'document.documentElement.scrollWidth - document.documentElement.clientWidth',
    );
    if (over !== 0) faults.push(`${over} pixels too wide for ${width}`);
  }
  await page.setViewportSize(size);
  return faults;
}

requires('chromium').describe('every page of the console', () => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let browser: Browser;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder);
    browser = await launch();
  });
  afterAll(async () => {
    await browser?.close();
    await server?.stop();
    await database.drop();
  });
  const clients = () => server.clients('grpc');

  it.each(['light', 'dark'])('has no accessibility problem that axe finds, in %s', async (colorScheme) => {
    const name = `checkout ${colorScheme}`;
    const { secret } = await makeKey(clients(), { name, ownerId: 'payments', scopes: ['orders:*'] });
    for (let i = 1; i < 9; i++)
      await decide(clients(), secret, {
        clientIp: `203.0.113.${i}`,
        requiredScope: i % 4 === 0 ? 'a:b' : 'orders:read',
      });
    const seen = await visit(browser, server.running.ports.http, { colorScheme });
    await signIn(seen, server.adminKey);
    const { page } = seen;
    const faults: string[] = [];
    const look = async (of: string) => {
      const axe = new AxeBuilder({ page });
      // The dark page is the light one in other colours.
      if (colorScheme === 'dark') axe.withRules(['color-contrast', 'link-in-text-block']);
      const { violations } = await axe.analyze();
      for (const { id, nodes } of violations) faults.push(`${of}: ${id} ${nodes[0]?.html}`);
      if (colorScheme === 'light') faults.push(...(await tooWide(page)).map((fault) => `${of}: ${fault}`));
      if (PICTURES === undefined) return;
      mkdirSync(PICTURES, { recursive: true });
      const path = join(PICTURES, `${of}-${colorScheme}.png`);
      await page.screenshot({ path, fullPage: false });
    };
    const shown = (heading: string) =>
      page.getByRole('heading', { name: heading, exact: true }).first().waitFor();
    await shown('Decisions in the last 24 hours');
    await look('overview');
    await open(seen, 'Keys');
    await page.getByRole('link', { name }).waitFor();
    await look('keys');
    await page.getByRole('link', { name }).click();
    await shown('Addresses in the last 24 hours');
    await look('key');
    await page.getByRole('button', { name: 'Revoke …' }).click();
    await page.getByText('It was asked about').waitFor();
    await look('revoke');
    await page.keyboard.press('Escape');
    await open(seen, 'Audit');
    await page
      .getByRole('button', { name: /^details of/ })
      .first()
      .waitFor();
    await look('audit');
    for (const [menu, of] of [
      ['Try a key', 'try'],
      ['Alerts', 'alerts'],
      ['Tokens', 'tokens'],
    ] as const) {
      await open(seen, menu);
      await look(of);
    }
    await open(seen, 'Keys');
    await page.getByRole('button', { name: 'New key' }).click();
    await look('new-key');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('button', { name: 'Sign in' }).waitFor();
    await look('sign-in');
    expect(faults).toEqual([]);
    nothingWrong(seen);
    await seen.context.close();
  });
});

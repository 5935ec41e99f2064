import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { expect } from 'vitest';
import { HANGS_MS } from '../support/hangs.ts';
import { tool } from '../support/tools.ts';

const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
];

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: tool('chromium'), args: FLAGS });
}

/** A page of the console, and everything that it did wrong: violations, errors, failed requests, foreign hosts. */
export interface Visit {
  readonly context: BrowserContext;
  readonly page: Page;
  readonly origin: string;
  readonly wrong: string[];
}

export async function visit(browser: Browser, port: number, options: object = {}): Promise<Visit> {
  const origin = `http://127.0.0.1:${port}`;
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(HANGS_MS);
  const page = await context.newPage();
  const wrong: string[] = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) wrong.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => wrong.push(`error: ${error.message}`));
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(data|blob):/.test(url)) wrong.push(`foreign: ${url}`);
  });
  await page.goto(`${origin}/console/`);
  return { context, page, origin, wrong };
}

export async function signIn({ page }: Visit, key: string, keep = false): Promise<void> {
  await page.getByLabel('API key').fill(key);
  if (keep) await page.getByLabel('Keep me signed in').check();
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
}

/** The menu's entries. */
export async function open({ page }: Visit, name: string): Promise<void> {
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name }).click();
}

/** Fails with the errors of the page. */
export function nothingWrong({ wrong }: Visit): void {
  expect(wrong).toEqual([]);
}

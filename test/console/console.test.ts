// If this fails, the admin console does not do what it shows, violates its security policy, or is not accessible.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { decide, makeKey, onEachStore } from '../rpc/cases.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase, type StoreKind, startServer, type TestServer } from '../support/server.ts';
import { launch, nothingWrong, open, signIn, type Visit, visit } from './browser.ts';

const MARKUP = '<img src=x onerror=document.title=1>';

requires('chromium').describe('in a browser', () => {
  // A page sees nothing of the store behind the API: on the other one in the long run only.
  if (process.env.LONG) onEachStore('the console on %s', pages);
  else describe('the console on sqlite', () => pages('sqlite'));
});

function pages(kind: StoreKind): void {
  const database = freshDatabase(kind, inject('mongoUri'));
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
  const http = () => server.running.ports.http;
  const clients = () => server.clients('grpc');

  /** Signed in as the admin; at the end closed, and checked for errors. */
  const signedIn = async (use: (visit: Visit) => Promise<void>, options: object = {}) => {
    const seen = await visit(browser, http(), options);
    await signIn(seen, server.adminKey);
    await use(seen);
    nothingWrong(seen);
    await seen.context.close();
  };

  it('creates a key, copies its secret and revokes it, by keyboard alone', async () => {
    await signedIn(async ({ page, context, origin }) => {
      await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin });
      const press = async (name: string) => {
        const button = page.getByRole('button', { name, exact: true });
        await button.focus();
        await page.keyboard.press('Enter');
      };
      await page.getByRole('link', { name: 'Keys', exact: true }).focus();
      await page.keyboard.press('Enter');
      await press('New key');
      // The page puts the focus where typing begins.
      await page.locator('#name:focus').waitFor();
      await page.keyboard.type(`typed ${kind}`);
      await page.keyboard.press('Tab');
      await page.keyboard.type('me');
      await page.keyboard.press('Tab');
      await page.keyboard.press('Tab');
      await page.keyboard.type('orders:read');
      await press('Create key');
      await page.getByText('This secret is shown once.').waitFor();
      // The focus is where the work goes on: on the secret.
      await page.locator('[aria-label="the new secret"]:focus').waitFor();
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      await page.getByText('Copied.').waitFor();
      const secret = await page.evaluate<string>('navigator.clipboard.readText()');
      const { decision, keyId } = await decide(clients(), secret, { requiredScope: 'orders:read' });
      expect(decision).toBe(11);
      await press('Show the key');
      await page.getByRole('heading', { name: `typed ${kind}` }).waitFor();
      await press('Revoke …');
      // A dialog that opens puts the focus into its first field.
      await page.locator('#reason:focus').waitFor();
      await page.keyboard.press('Tab');
      await page.keyboard.press('Tab');
      await page.locator('#confirm:focus').waitFor();
      await page.keyboard.type(`typed ${kind}`);
      await page.keyboard.press('Enter');
      await page.getByText('is revoked everywhere').waitFor();
      expect((await decide(clients(), secret)).decision).toBe(4);
      expect((await clients().admin.getKey({ id: keyId })).key?.status).toBe(4);
      expect(await page.content()).not.toContain(secret);
    });
  });

  it('shows names as text, whatever they contain', async () => {
    const { id } = await makeKey(clients(), {
      name: MARKUP,
      ownerId: 'עברית 🙂',
      metadata: { '<b>': '</td>' },
    });
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByRole('link', { name: MARKUP }).click();
      await page.getByRole('heading', { name: MARKUP }).waitFor();
      await page.getByText(id).first().waitFor();
      expect(await page.locator('img').count()).toBe(0);
    });
  });

  it('changes a key, and shows both versions after a concurrent change', async () => {
    const { id } = await makeKey(clients(), { name: 'raced', ownerId: 'one' });
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByLabel('Name or id begins with').fill('raced');
      await page.getByRole('link', { name: 'raced' }).click();
      await page.getByRole('button', { name: 'Edit …' }).click();
      await clients().admin.updateKey({
        key: { id, ownerId: 'theirs' },
        updateMask: { paths: ['owner_id'] },
      });
      await page.getByLabel('Owner').fill('mine');
      await page.getByRole('button', { name: 'Save' }).click();
      await page.getByText('Somebody else has changed this key').waitFor();
      await page.getByText('theirs: theirs — yours: mine').waitFor();
      await page.getByRole('button', { name: 'Save' }).click();
      await page.getByText('The change holds everywhere.').waitFor();
      expect((await clients().admin.getKey({ id })).key?.ownerId).toBe('mine');
      seen.wrong.splice(0, seen.wrong.length, ...seen.wrong.filter((text) => !/status of 409/.test(text)));
    });
  });

  it('shows an error at its field, and keeps the input', async () => {
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByRole('button', { name: 'New key' }).click();
      await page.getByLabel('Name').fill('half');
      await page.getByLabel('Scopes').fill('tra*');
      await page.getByRole('button', { name: 'Create key' }).click();
      await page.getByText('Some fields need a change.').waitFor();
      expect(await page.getByLabel('Scopes').getAttribute('aria-invalid')).toBe('true');
      expect(await page.getByLabel('Owner').getAttribute('aria-invalid')).toBe('true');
      expect(await page.getByLabel('Name').inputValue()).toBe('half');
      // The browser logs each answer that is an error.
      seen.wrong.splice(0, seen.wrong.length, ...seen.wrong.filter((text) => !/status of 400/.test(text)));
    });
  });

  it('puts the cursor into the first wrong field, which may be out of sight', async () => {
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByRole('button', { name: 'New key' }).click();
      await page.getByLabel('Rate limits').fill('100 per minute');
      await page.getByLabel('Metadata').fill('no sign');
      await page.getByRole('button', { name: 'Create key' }).click();
      await page.locator('#rate_limits:focus').waitFor();
      await page.getByText('100 per minute: write it as 100/60s').waitFor();
    });
  });

  it('shows the last uses of a key, however often it was looked at, and what came since on a refresh', async () => {
    const { id, secret } = await makeKey(clients(), { name: 'looked at' });
    await decide(clients(), secret, { clientIp: '203.0.113.80' });
    for (let i = 0; i < 110; i++) await clients().admin.getKey({ id });
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByRole('link', { name: 'looked at' }).click();
      const events = page.getByRole('region', { name: 'last uses and changes' });
      await events.getByText('203.0.113.80').waitFor();
      expect(await events.getByText('GetKey').count()).toBe(0);
      await decide(clients(), secret, { clientIp: '203.0.113.81' });
      await page.getByRole('button', { name: 'Refresh' }).click();
      await events.getByText('203.0.113.81').waitFor();
      await page.getByRole('region', { name: 'addresses' }).getByText('203.0.113.81').waitFor();
    });
  });

  it('rotates with presets, disables, enables and expires', async () => {
    const { id, secret } = await makeKey(clients(), { name: 'turning' });
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByLabel('Name or id begins with').fill(id);
      await page.getByRole('link', { name: 'turning' }).click();
      await page.getByRole('button', { name: 'Rotate …' }).click();
      await page.getByLabel('How').selectOption('leaked');
      await page.getByRole('button', { name: 'Make a new secret' }).click();
      const fresh = await page.getByLabel('the new secret').inputValue();
      expect((await decide(clients(), secret)).decision).toBe(7);
      expect((await decide(clients(), fresh)).decision).toBe(11);
      page.once('dialog', (dialog) => void dialog.accept());
      await page.getByRole('button', { name: 'Done' }).click();
      await page.getByRole('button', { name: 'Disable' }).click();
      await page.getByText('disabled everywhere').waitFor();
      expect((await decide(clients(), fresh)).decision).toBe(5);
      await page.getByRole('button', { name: 'Enable' }).click();
      await page.getByText('works again').waitFor();
      await page.getByRole('button', { name: 'Expire …' }).click();
      await page.getByRole('button', { name: 'Expire now' }).click();
      await page.getByText('has expired everywhere').waitFor();
      expect((await decide(clients(), fresh)).decision).toBe(6);
      expect(await page.content()).not.toContain(fresh);
    });
  });

  it('asks before a secret is lost that was not copied', async () => {
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByRole('button', { name: 'New key' }).click();
      await page.getByLabel('Name').fill('uncopied');
      await page.getByLabel('Owner').fill('me');
      await page.getByLabel('Scopes').fill('a:b');
      await page.getByRole('button', { name: 'Create key' }).click();
      await page.getByText('This secret is shown once.').waitFor();
      let asked = '';
      page.once('dialog', (dialog) => {
        asked = dialog.message();
        void dialog.dismiss();
      });
      await open(seen, 'Audit');
      expect(asked).toContain('not copied');
      expect(await page.getByLabel('the new secret').isVisible()).toBe(true);
      page.once('dialog', (dialog) => void dialog.accept());
      await open(seen, 'Audit');
      await page.getByRole('heading', { name: 'Audit' }).waitFor();
    });
  });

  it('imports a file after checking it, and names each invalid line', async () => {
    const hash = (digit: string) =>
      (kind === 'sqlite' ? digit : digit.toUpperCase().toLowerCase()).repeat(64);
    const line = (name: string, keyHash: string) =>
      JSON.stringify({ name, owner_id: 'o', key_type: 'user', scopes: ['a:b'], key_hash: keyHash });
    const file = (text: string) => ({
      name: 'keys.jsonl',
      mimeType: 'text/plain',
      buffer: Buffer.from(text),
    });
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Keys');
      await page.getByRole('button', { name: 'Import …' }).click();
      await page
        .getByLabel('File')
        .setInputFiles(file(`${line('good', hash('a'))}\n${line('bad', 'x')}\nno json\n`));
      await page.getByText('line 3: not a JSON object').waitFor();
      await page.getByRole('button', { name: 'Check the file' }).click();
      await page.getByText('line 2: key_hash').waitFor();
      expect(await page.getByRole('button', { name: 'Import', exact: true }).isDisabled()).toBe(true);
      await page.getByLabel('File', { exact: true }).setInputFiles(file(line('good', hash('a'))));
      await page.getByRole('button', { name: 'Check the file' }).click();
      await page.getByText('all good').waitFor();
      await page.getByRole('button', { name: 'Import', exact: true }).click();
      await page.getByText('keys are here now').waitFor();
      await page.getByLabel('File', { exact: true }).waitFor({ state: 'detached' });
    });
  });

  it('finds events by filters in the address, and verifies the chains', async () => {
    const { id, secret } = await makeKey(clients(), { name: 'audited' });
    await decide(clients(), secret, { clientIp: '203.0.113.77' });
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Audit');
      await page.getByLabel('Client address').fill('203.0.113.77');
      await page.getByText('203.0.113.77').first().waitFor();
      expect(page.url()).toContain('address=203.0.113.77');
      await page.getByRole('link', { name: id }).first().waitFor();
      await page
        .getByRole('button', { name: /^details of/ })
        .first()
        .click();
      await page.getByText('"clientIp": "203.0.113.77"').waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Verify the chains' }).click();
      await page.getByText(/^Intact: \d+ events/).waitFor();
    });
  });

  it('tries a secret without consuming anything, and shows every reason', async () => {
    const { secret } = await makeKey(clients(), { ipAllowlist: ['192.0.2.0/24'], scopes: ['a:b'] });
    await signedIn(async (seen) => {
      const { page } = seen;
      await open(seen, 'Try a key');
      await page.getByLabel('Secret').fill(secret);
      await page.getByLabel('Required scope').fill('a:c');
      await page.getByLabel('Client address').fill('198.51.100.1');
      await page.keyboard.press('Enter');
      await page.getByText('Every reason: ip not allowed, insufficient scope').waitFor();
    });
  });

  it('shows alerts as they are raised, and clears a lockout', async () => {
    await signedIn(async (seen) => {
      const { page } = seen;
      for (let i = 0; i < 5; i++) await decide(clients(), 'bad', { clientIp: '198.51.100.200' });
      await open(seen, 'Alerts');
      await page.getByText('198.51.100.200 is locked out').waitFor();
      const row = page.getByRole('row').filter({ hasText: '198.51.100.200' }).filter({ hasText: 'Clear' });
      await row.getByRole('button', { name: 'Clear' }).click();
      await page.getByText('may ask again').waitFor();
      expect((await decide(clients(), 'bad', { clientIp: '198.51.100.200' })).decision).toBe(2);
    });
  });

  it('offers no changes to a read-only key, and refuses a key that may not read', async () => {
    const { secret } = await makeKey(clients(), { scopes: ['apikeys:audit'] });
    const looking = await visit(browser, http());
    await signIn(looking, secret);
    await open(looking, 'Keys');
    await looking.page.getByRole('link', { name: 'bootstrap admin' }).click();
    await looking.page.getByRole('heading', { name: 'Limits' }).waitFor();
    for (const name of ['New key', 'Import …', 'Edit …', 'Revoke …', 'Rotate …'])
      expect(await looking.page.getByRole('button', { name }).count()).toBe(0);
    nothingWrong(looking);
    await looking.context.close();
    const other = await makeKey(clients(), { scopes: ['a:b'] });
    const refused = await visit(browser, http());
    await refused.page.getByLabel('API key').fill(other.secret);
    await refused.page.getByRole('button', { name: 'Sign in' }).click();
    await refused.page.getByText('the console needs the scope apikeys:admin').waitFor();
    await refused.context.close();
  });

  it('ends the session of a key that was revoked, and keeps no key after it', async () => {
    const { id, secret } = await makeKey(clients(), { scopes: ['apikeys:*'] });
    const seen = await visit(browser, http());
    await signIn(seen, secret, true);
    expect(await seen.page.evaluate('sessionStorage.length')).toBe(1);
    await seen.page.reload();
    await seen.page.getByRole('heading', { name: 'Overview' }).waitFor();
    await clients().admin.revokeKey({ id, reason: 1 });
    await seen.page.getByText('Your key no longer works').waitFor();
    const left = await seen.page.evaluate(`[
      JSON.stringify([{ ...sessionStorage }, { ...localStorage }]),
      document.documentElement.outerHTML,
      location.href + document.cookie,
    ]`);
    expect(JSON.stringify(left)).not.toContain(secret);
    await seen.context.close();
  });

  it('keeps a form while the server is down, and continues by itself', async () => {
    await signedIn(async (seen) => {
      const { page, context } = seen;
      await open(seen, 'Keys');
      await page.getByRole('button', { name: 'New key' }).click();
      await page.getByLabel('Name').fill('later');
      await page.getByLabel('Owner').fill('me');
      await page.getByLabel('Scopes').fill('a:b');
      await context.setOffline(true);
      await page.getByRole('button', { name: 'Create key' }).click();
      await page.getByText('The server cannot be reached').waitFor();
      await context.setOffline(false);
      await page.getByRole('button', { name: 'Create key' }).click();
      await page.getByText('This secret is shown once.').waitFor();
      await page.getByRole('button', { name: 'Copy' }).click();
      seen.wrong.splice(
        0,
        seen.wrong.length,
        ...seen.wrong.filter((text) => !/ERR_INTERNET_DISCONNECTED/.test(text)),
      );
    });
  });
}

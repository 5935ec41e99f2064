// If this fails, systemd does not load the unit, or the server runs there with rights that it does not need.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readConfig } from '../../src/config.ts';
import { run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { ROOT, tool } from '../support/tools.ts';

const unit = readFileSync(join(ROOT, 'deploy/systemd/apikeyd.service'), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'apikeyd-unit-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('apikeyd.service', () => {
  it('sets only known settings', () => {
    const env = Object.fromEntries(
      [...unit.matchAll(/^Environment=(\w+)=(.*)$/gm)].map(([, name = '', value]) => [name, value]),
    );
    expect(Object.keys(env)).toContain('STORE_URL');
    const config: Record<string, unknown> = readConfig(env);
    expect(Object.keys(env).filter((name) => config[name] !== env[name])).toEqual([]);
  });

  requires('systemd-analyze').it('is accepted by systemd, and has a low exposure', {}, async () => {
    const file = join(folder, 'apikeyd.service');
    // systemd looks for the program, which is not installed here.
    writeFileSync(file, unit.replace(/^ExecStart=\S+/m, `ExecStart=${process.execPath}`));
    const verified = await run(tool('systemd-analyze'), ['verify', '--man=no', file]);
    const aboutIt = verified.stderr.split('\n').filter((line) => line.includes('apikeyd.service'));
    expect([verified.code, aboutIt]).toEqual([0, []]);
    const judged = await run(tool('systemd-analyze'), [
      'security',
      '--offline=yes',
      '--threshold=20',
      '--no-pager',
      file,
    ]);
    expect(judged.code, judged.stdout + judged.stderr).toBe(0);
  });
});

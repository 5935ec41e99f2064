// If this fails, `npm ci && npm test` may need a program that a newcomer does not have, and nobody notices.
import { exec, execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import packageJson from '../package.json' with { type: 'json' };
import { run } from './support/process.ts';
import { needs, ROOT, tool, toolsFolder } from './support/tools.ts';

/** The tests of guarded/needs.ts where there is nothing but Node.js. */
async function onBareMachine(env: Record<string, string | undefined>) {
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs');
  const args = [vitest, 'run', '--config', 'test/support/guarded/vitest.config.ts'];
  const bare = { PATH: '/nowhere', APIKEYD_TEST_CACHE: '/nowhere', CI: undefined, NO_COLOR: '1' };
  const { code, stdout, stderr } = await run(process.execPath, args, { env: { ...bare, ...env } });
  return { code, output: stdout + stderr, lastLine: stdout.trimEnd().split('\n').at(-1) };
}

describe('a test', () => {
  it('cannot start a program that is not in the list, whatever this machine has', () => {
    expect(() => spawn('nmap', ['localhost'])).toThrow('nmap, which is not in the list');
    expect(() => execFileSync('/usr/bin/env', ['nmap'])).toThrow('/usr/bin/env, which is not in the list');
    expect(() => exec('nmap localhost')).toThrow('use spawn or execFile');
  });

  it('cannot start a program that it does not require', () => {
    expect(() => spawn(tool('h2spec'))).toThrow("h2spec without requires('h2spec')");
    expect(() => spawn('bash', ['-c', 'true'])).toThrow("bash without requires('bash')");
  });

  it('is skipped when a program is missing, with the way to install it', async () => {
    const { code, output, lastLine } = await onBareMachine({});
    expect([code, lastLine], output).toEqual([0, '0 passed, 0 failed, 4 skipped']);
    const row = (count: number, lacks: string, bring: string) =>
      new RegExp(`^ *${count}  test/support/guarded/needs.ts +${lacks} +${bring}$`, 'm');
    expect(output).toMatch(row(2, 'grpcurl', 'npm run tools:up'));
    expect(output).toMatch(row(1, 'mongodb, bash', 'npm run mongo:up; apt-get install bash'));
    expect(output).toMatch(row(1, 'java', needs.java.bring));
  });

  it('fails for a missing program in a full run, except for programs that not every machine can have', async () => {
    const { code, output, lastLine } = await onBareMachine({ CI: 'true' });
    expect([code, lastLine], output).toEqual([1, '0 passed, 2 failed, 1 skipped']);
    expect(output).toContain('grpcurl is not here: npm run tools:up');
  });

  it('fails when it has started a program that it does not require', async () => {
    const { code, output, lastLine } = await onBareMachine({ UNGUARDED: '1' });
    expect([code, lastLine], output).toEqual([1, '0 passed, 1 failed, 4 skipped']);
    expect(output).toContain("a test starts h2spec without requires('h2spec')");
  });
});

describe('the list of programs', () => {
  it('names only existing ways to install a program', () => {
    const commands = Object.values(needs).map(({ bring }) => bring);
    const ours = commands.flatMap((bring) => /^npm run (\S+)$/.exec(bring)?.[1] ?? []);
    expect(ours.filter((name) => !(name in packageJson.scripts))).toEqual([]);
    expect(commands.filter((bring) => !/^(npm run \S+|apt-get install [a-z0-9 -]+)$/.test(bring))).toEqual(
      [],
    );
  });

  it('says "npm run tools:up" only for programs that tools.sh installs', () => {
    const script = readFileSync(join(ROOT, 'test/support/tools.sh'), 'utf8');
    const names = Object.entries(needs).flatMap(([name, { bring, at }]) =>
      bring === 'npm run tools:up' ? [at?.replace(`${toolsFolder}/`, '').split('/').at(-1) ?? name] : [],
    );
    expect(names.filter((name) => !script.includes(name))).toEqual([]);
  });
});

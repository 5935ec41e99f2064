/** Tests that tools.test.ts runs without any program: three that need programs, and one that must not run. */
import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { requires } from '../requires.ts';
import { tool } from '../tools.ts';

const never = () => expect.unreachable();
requires('grpcurl').describe('a client', () => {
  it('asks', never);
  it('asks again', never);
});
requires('mongodb', 'bash').it('stops a database', {}, never);
requires('java').it('is a guard in Java', {}, never);
if (process.env.UNGUARDED !== undefined) it('is not guarded', () => spawnSync(tool('h2spec')).status);

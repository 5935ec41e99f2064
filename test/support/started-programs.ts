/** Fails a test that starts a program which it does not require; see tools.ts. */
import childProcess from 'node:child_process';
import { syncBuiltinESMExports } from 'node:module';
import { objection } from './requires.ts';

type Start = (program: string, ...rest: unknown[]) => unknown;
const starts = childProcess as unknown as Record<string, Start>;

for (const name of ['spawn', 'spawnSync', 'execFile', 'execFileSync']) {
  const start = starts[name] as Start;
  starts[name] = (program, ...rest) => {
    const reason = objection(program);
    if (reason !== undefined) throw new Error(reason);
    return start(program, ...rest);
  };
}
for (const name of ['exec', 'execSync'])
  starts[name] = () => {
    throw new Error(`a test uses ${name}, which hides what is started: use spawn or execFile`);
  };
syncBuiltinESMExports();

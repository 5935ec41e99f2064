import { Command } from 'commander';
import { type ClientDefaults, runner } from '../client.ts';
import type { Print } from '../output.ts';
import { addCreate } from './create.ts';
import { addExpire } from './expire.ts';
import { addGet } from './get.ts';
import { addImport } from './import.ts';
import { addList } from './list.ts';
import { addRevoke } from './revoke.ts';
import { addRotate } from './rotate.ts';
import { addStats } from './stats.ts';
import { addUpdate } from './update.ts';
import { addUsage } from './usage.ts';
import { addValidate } from './validate.ts';

/** The verbs in the order of `--help`. */
const VERBS = [
  addCreate,
  addImport,
  addList,
  addGet,
  addValidate,
  addUpdate,
  addRotate,
  addExpire,
  addRevoke,
  addUsage,
  addStats,
];

/** `apikeyd api-key …`: keys, over gRPC. `exit` is called with the exit code of a command that has run. */
export function apiKeyCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  const group = new Command('api-key').description('create, list, validate, change and revoke keys');
  for (const add of VERBS) add({ group, defaults, run: runner(exit), print });
  return group;
}

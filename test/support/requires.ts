import { tmpdir } from 'node:os';
import { basename } from 'node:path';
import { describe, inject, it, type TestFunction, type TestOptions } from 'vitest';
import { isInstalled, type NeedName, needNames, needs, ROOT, tool } from './tools.ts';

declare module 'vitest' {
  interface TaskMeta {
    /** The needs that a skipped test or suite lacks. */
    lacks?: NeedName[];
  }
}

const required = new Set<NeedName>();

const isHere = (name: NeedName) => (name === 'mongodb' ? inject('mongoUri') !== '' : isInstalled(name));

/** `describe` and `it` for tests that need these programs: skipped when one is missing, failed with CI=true. */
export function requires(...names: readonly NeedName[]) {
  for (const name of names) required.add(name);
  const lacks = names.filter((name) => !isHere(name));
  const fails = process.env.CI === 'true' && lacks.some((name) => needs[name].mayLack === undefined);
  const refuse = () => {
    throw new Error(lacks.map((name) => `${name} is not here: ${needs[name].bring}`).join('; '));
  };
  return {
    here: lacks.length === 0,
    describe(name: string, suite: () => void): void {
      if (fails) it(name, refuse);
      else describe.skipIf(lacks.length > 0)(name, { meta: { lacks } }, suite);
    },
    it(name: string, options: TestOptions, test: TestFunction): void {
      if (fails) it(name, refuse);
      else it.skipIf(lacks.length > 0)(name, { ...options, meta: { lacks } }, test);
    },
  };
}

/** Programs of every machine that can run `npm ci`. */
const EVERYWHERE = ['node', 'npm', 'npx', 'git', 'sh'];

/** Why a test must not start this program, or undefined. */
export function objection(program: string): string | undefined {
  const need = needNames.find((name) => tool(name) === program);
  if (need !== undefined)
    return required.has(need) ? undefined : `a test starts ${need} without requires('${need}')`;
  // The programs of the project, and those that a test has built.
  if ([ROOT, tmpdir()].some((folder) => program.startsWith(folder))) return undefined;
  if (EVERYWHERE.includes(basename(program))) return undefined;
  return `a test starts ${program}, which is not in the list of test/support/tools.ts`;
}

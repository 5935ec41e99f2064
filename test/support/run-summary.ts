/**
 * Ends a run with the tests that were skipped, for want of which tool, and how to have it; then those that failed, and those
 * that passed only when they were tried again, each with its first error. The last line counts the tests.
 */
import { stripVTControlCharacters } from 'node:util';
import type { Reporter, TestCase, TestModule, TestSuite, Vitest } from 'vitest/node';
import { type NeedName, needs } from './tools.ts';

export default class RunSummary implements Reporter {
  /** Whether tests were selected by name: then the others need no reason to be skipped. */
  #chosen = false;

  onInit(vitest: Vitest): void {
    this.#chosen = vitest.config.testNamePattern !== undefined;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const of = (state: string) => tests.filter((test) => test.result().state === state);
    // A file that cannot be loaded, or whose set-up fails, has no failed test that says so.
    const broken = modules.filter((module) => module.state() === 'failed' && !hasFailedTest(module));
    const [passed, failed, skipped] = [of('passed'), of('failed'), of('skipped')];
    const unsteady = passed.filter((test) => test.diagnostic()?.flaky);
    const lines = [
      ...broken.map((module) => `failed to load: ${module.relativeModuleId}${firstError(module.errors())}`),
      ...failed.map((test) => `failed: ${nameOf(test)}${firstError(test.result().errors)}`),
      ...unsteady.map(
        (test) => `passed when tried again: ${nameOf(test)}${firstError(test.result().errors)}`,
      ),
      `${passed.length} passed, ${failed.length + broken.length} failed, ${skipped.length} skipped`,
    ];
    process.stdout.write(`${tableOf(skipped.filter((test) => this.#isToldOf(test)))}${lines.join('\n')}\n`);
  }

  /** Tests that did not run because their set-up failed are covered by that failure. */
  #isToldOf(test: TestCase): boolean {
    return lacksOf(test).length > 0 || (!this.#chosen && test.options.mode === 'skip');
  }
}

const nameOf = (test: TestCase) => `${test.module.relativeModuleId} > ${test.fullName}`;

const firstError = (errors: readonly { message: string }[] = []) =>
  errors[0] ? `: ${stripVTControlCharacters(errors[0].message).replace(/\s+/g, ' ').slice(0, 300)}` : '';

const hasFailedTest = (module: TestModule) => [...module.children.allTests('failed')].length > 0;

/** One row for each file and its missing programs. */
function tableOf(skipped: readonly TestCase[]): string {
  if (skipped.length === 0) return '';
  const rows = new Map<string, { count: number; cells: string[] }>();
  for (const test of skipped) {
    const file = test.module.relativeModuleId;
    const lacks = lacksOf(test);
    const brings = new Set(lacks.map((name) => needs[name].bring));
    const cells =
      lacks.length > 0
        ? [file, lacks.join(', '), [...brings].join('; ')]
        : [`${file} > ${test.fullName}`, '', ''];
    const key = cells.join();
    rows.set(key, { count: (rows.get(key)?.count ?? 0) + 1, cells });
  }
  const lines = [...rows.values()].map(({ count, cells }) => [String(count), ...cells]);
  return `${aligned([['tests', 'skipped in', 'for want of', 'what brings it'], ...lines])}\n`;
}

function aligned(rows: readonly string[][]): string {
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0));
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i === 0 ? cell.padStart(width(i)) : cell.padEnd(width(i)))).join('  ');
  return rows.map((row) => `${line(row).trimEnd()}\n`).join('');
}

/** Of the test itself, or of the nearest suite around it that says so. */
function lacksOf(test: TestCase): readonly NeedName[] {
  let at: TestCase | TestSuite | TestModule = test;
  while (at.type !== 'module') {
    const { lacks = [] } = at.meta() as { lacks?: NeedName[] };
    if (lacks.length > 0) return lacks;
    at = at.parent;
  }
  return [];
}

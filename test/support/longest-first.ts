/** Starts the longest files first, so that no core waits at the end for one that started last. */
import { relative } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { ROOT } from './tools.ts';

/** Files of more than half a minute on two cores, longest first; a missing one only costs time. */
const LONGEST = [
  'test/attacks/attacks.test.ts',
  'test/e2e/cli.test.ts',
  'test/console/console.test.ts',
  'test/store/mongo.test.ts',
  'test/e2e/main-job.test.ts',
  'test/e2e/rotation.test.ts',
  'test/docs.test.ts',
  'test/store/sqlite.test.ts',
  'test/e2e/cli-files.test.ts',
  'test/fault/lease.test.ts',
  'test/console/looks.test.ts',
  'test/rpc/admin.test.ts',
  'test/rpc/validate.test.ts',
];

export default class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LONGEST.indexOf(relative(ROOT, moduleId));
      return at === -1 ? LONGEST.length : at;
    };
    // The sort is stable: the others keep the order of the last run, or of their sizes.
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import LongestFirst from './test/support/longest-first.ts';

// Hundreds of processes of the same program: what one has stripped and compiled, the next reads.
process.env.NODE_COMPILE_CACHE ??= join(import.meta.dirname, 'node_modules/.cache/node');

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/mongo-server.ts'],
    setupFiles: ['test/support/started-programs.ts'],
    reporters: ['default', './test/support/run-summary.ts'],
    sequence: { sequencer: LongestFirst },
    // The real processes, browsers and databases of the end-to-end suites share two cores.
    maxWorkers: 2,
    // For what hangs, and not for what is slow: a machine may be, or may be busy.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    execArgv: ['--disable-warning=ExperimentalWarning'],
  },
});

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/mongo-server.ts'],
    setupFiles: ['test/support/started-programs.ts'],
    reporters: ['default', './test/support/skips.ts'],
    // The real processes, browsers and databases of the end-to-end suites share two cores.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    execArgv: ['--disable-warning=ExperimentalWarning'],
  },
});

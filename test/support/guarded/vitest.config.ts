/** Runs needs.ts alone, which no run of the tests takes, as those are run. */
import { defineConfig, mergeConfig } from 'vitest/config';
import config from '../../../vitest.config.ts';

const { include: _all, globalSetup: _mongo, ...guards } = config.test ?? {};
export default mergeConfig(
  { test: guards },
  defineConfig({ test: { include: ['test/support/guarded/needs.ts'], provide: { mongoUri: '' } } }),
);

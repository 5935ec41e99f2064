/** Runs needs.ts, which the normal runs leave out, with their settings. */
import { defineConfig, mergeConfig } from 'vitest/config';
import config from '../../../vitest.config.ts';

const { include: _all, globalSetup: _mongo, ...guards } = config.test ?? {};
export default mergeConfig(
  { test: guards },
  defineConfig({ test: { include: ['test/support/guarded/needs.ts'], provide: { mongoUri: '' } } }),
);

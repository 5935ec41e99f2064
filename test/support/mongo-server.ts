/** Finds or starts a real server of the MongoDB protocol for the tests; see README, "Tests". */
import { execFileSync, spawnSync } from 'node:child_process';
import { MongoMemoryReplSet } from 'mongodb-memory-server-core';
import type { TestProject } from 'vitest/node';
import { isInstalled } from './tools.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** '' when there is none: the Mongo suites are skipped, or fail with CI=true. */
    mongoUri: string;
    /** The process that serves it, for the fault tests that stop it. */
    mongoServer: 'given' | 'mongod' | 'ferretdb' | 'none';
  }
}

const FERRETDB = new URL('./ferretdb.sh', import.meta.url).pathname;

export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const provide = (uri: string, server: 'given' | 'mongod' | 'ferretdb' | 'none') => {
    project.provide('mongoUri', uri);
    project.provide('mongoServer', server);
  };
  if (process.env.MONGODB_URI) {
    provide(process.env.MONGODB_URI, 'given');
    return undefined;
  }
  if (isInstalled('mongod')) return await startMongod((uri) => provide(uri, 'mongod'));
  if (process.env.CI === 'true' || running()) {
    // Its progress goes to stderr; the last line of stdout is the URI.
    const out = execFileSync('bash', [FERRETDB, 'up'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      encoding: 'utf8',
    });
    provide(out.trim().split('\n').at(-1) ?? '', 'ferretdb');
    return undefined;
  }
  provide('', 'none');
  return undefined;
}

/** The fallback was started by `npm run mongo:up`. */
function running(): boolean {
  return isInstalled('bash') && spawnSync('bash', [FERRETDB, 'status']).status === 0;
}

async function startMongod(provide: (uri: string) => void): Promise<() => Promise<void>> {
  const server = await MongoMemoryReplSet.create({
    binary: { systemBinary: execFileSync('sh', ['-c', 'command -v mongod'], { encoding: 'utf8' }).trim() },
    replSet: { count: 1, storageEngine: 'wiredTiger' },
  });
  provide(server.getUri());
  return async () => void (await server.stop());
}

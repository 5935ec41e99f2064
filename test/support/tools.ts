/**
 * The closed list of programs that tests may start, and how to have each. A machine that can run `npm ci` has Node.js,
 * npm, git, sh and the coreutils; a test that starts anything else says so, and is skipped where the program is missing:
 *
 *     requires('redis-server').describe('alerts on Redis', () => { … spawn(tool('redis-server'), …) … });
 *     requires('grpcurl', 'mongodb').it('answers grpcurl', { timeout: 120_000 }, async () => { … });
 *
 * (`requires` is in requires.ts.) The run ends with a table of what was skipped, why, and how to have it (run-summary.ts). With
 * CI=true, as in `npm run all`, a missing program is a failed test. Starting a program that is not in the list, or in a
 * file that does not require it, fails on every machine (started-programs.ts).
 *
 * A new program: one entry here and its installation in tools.sh. Ask first whether a generated client or `buf curl`
 * (`tool('buf')`, which comes with the packages) shows the same.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export const ROOT = new URL('../..', import.meta.url).pathname;
/** The folder of tools.sh. */
export const toolsFolder =
  process.env.APIKEYD_TEST_CACHE ?? join(process.env.HOME ?? '/root', '.cache/apikeyd-test');

interface Need {
  /** The one command that brings it. */
  readonly bring: string;
  /** Where it is, if not on the PATH. */
  readonly at?: string;
  /** Why a run of the whole suite may go without. */
  readonly mayLack?: string;
}

const onPath = (name: string) =>
  (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, name));
const TOOLS_UP = 'npm run tools:up';
const inCache = (path: string): Need => ({ bring: TOOLS_UP, at: join(toolsFolder, path) });
const NEEDS_PYTHON = { mayLack: 'needs Python with venv and pip' };
const NEEDS_JAVA = { mayLack: 'needs a JDK with Maven' };

const NEEDS = {
  mongodb: { bring: 'npm run mongo:up' },
  grpcurl: inCache('bin/grpcurl'),
  h2spec: inCache('bin/h2spec'),
  'interop-client': inCache('bin/interop-client'),
  connectconformance: inCache('bin/connectconformance'),
  'go-guard': inCache('go-guard'),
  go: { bring: 'apt-get install golang-go' },
  python: { ...inCache('python/bin/python'), ...NEEDS_PYTHON },
  schemathesis: { ...inCache('python/bin/schemathesis'), ...NEEDS_PYTHON },
  java: { bring: 'apt-get install default-jdk maven', ...NEEDS_JAVA },
  'guard.jar': { bring: TOOLS_UP, at: join(ROOT, 'examples/java/target/guard.jar'), ...NEEDS_JAVA },
  'redis-server': { bring: TOOLS_UP },
  curl: { bring: TOOLS_UP },
  'redis-cli': { bring: TOOLS_UP },
  // The proxies of docs/gateways.md.
  envoy: { ...inCache('proxies/bin/envoy'), ...NEEDS_PYTHON },
  traefik: { ...inCache('proxies/bin/traefik'), ...NEEDS_PYTHON },
  caddy: inCache('bin/caddy'),
  nginx: { bring: TOOLS_UP, at: '/usr/sbin/nginx' },
  // A test that starts it must have its path.
  chromium: {
    bring: TOOLS_UP,
    at: onPath('chromium').find(existsSync) ?? join(ROOT, 'not-on-the-path/chromium'),
  },
  // The chart, its alert rules and the unit of deploy/.
  helm: inCache('bin/helm'),
  'kubernetes-validate': { ...inCache('kubernetes-validate/bin/python'), ...NEEDS_PYTHON },
  promtool: { ...inCache('bin/promtool'), mayLack: 'needs the prometheus of Debian' },
  hadolint: { ...inCache('hadolint/bin/hadolint'), ...NEEDS_PYTHON },
  // To build and run the image without an engine, in the long tests.
  buildah: { bring: 'apt-get install buildah mmdebstrap', mayLack: 'needs root' },
  umoci: { bring: 'apt-get install umoci', mayLack: 'needs root' },
  unshare: { bring: 'apt-get install util-linux', mayLack: 'needs root' },
  'systemd-analyze': { bring: 'apt-get install systemd', mayLack: 'needs systemd' },
  awk: { bring: 'apt-get install mawk' },
  bash: { bring: 'apt-get install bash' },
  grep: { bring: 'apt-get install grep' },
  // Of PostgreSQL, for the real n8n (n8n.sh).
  pg_ctlcluster: { bring: 'apt-get install postgresql', mayLack: 'needs PostgreSQL' },
  script: { bring: 'apt-get install bsdutils' },
  sed: { bring: 'apt-get install sed' },
} satisfies Record<string, Need>;

export type NeedName = keyof typeof NEEDS;
export const needs: Readonly<Record<NeedName, Need>> = NEEDS;
export const needNames = Object.keys(needs) as NeedName[];

/** The path or name to start a program by. */
export function tool(name: NeedName | 'buf'): string {
  return name === 'buf' ? join(ROOT, 'node_modules/.bin/buf') : (needs[name].at ?? name);
}

/** For a program or file; whether there is a database is known to `requires` alone. */
export function isInstalled(name: Exclude<NeedName, 'mongodb'> | 'mongod'): boolean {
  const at = name === 'mongod' ? undefined : needs[name].at;
  return (at === undefined ? onPath(name) : [at]).some((path) => {
    try {
      accessSync(path, /\.(jar|py)$/.test(path) ? constants.R_OK : constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

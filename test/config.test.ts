// If this fails, a typo in the configuration is taken silently, or a start fails without saying why.

import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type ConfigError, parseAddress, readConfig, SETTINGS } from '../src/config.ts';
import { apikeyd } from './support/process.ts';
import { freshDatabase } from './support/server.ts';

const messageOf = (env: Record<string, string>) => {
  try {
    readConfig(env);
    return undefined;
  } catch (error) {
    return (error as ConfigError).message;
  }
};

describe('settings', () => {
  it('have default values', () => {
    expect(readConfig({ HOME: '/x' })).toMatchObject({
      STORE_URL: 'sqlite:./data/apikeyd.db',
      CACHE_TTL_SECONDS: 300,
      RATE_LIMIT_MAX_ATTEMPTS: 5,
      ALLOW_ANONYMOUS_VALIDATE: false,
    });
  });

  it.each(SETTINGS.filter((row) => row.kind === 'integer').map((row) => [row.name, row] as const))(
    '%s keeps to its bounds',
    (name, row) => {
      const { min, max } = row as { min: number; max: number };
      for (const good of [min, max]) expect(messageOf({ [name]: String(good) })).toBeUndefined();
      for (const bad of [min - 1, max + 1, 'x', '1.5', '1e3', ' 1']) {
        expect(messageOf({ [name]: String(bad) })).toMatch(
          new RegExp(`^${name}: must be a whole number from ${min} to ${max}`),
        );
      }
    },
  );

  it('are refused when they contradict each other or are malformed', () => {
    const together = { ROTATION_MIN_GRACE_SECONDS: '604800', ROTATION_MAX_GRACE_SECONDS: '3600' };
    expect(messageOf(together)).toMatch(/^ROTATION_MIN_GRACE_SECONDS: must not be above/);
    for (const good of ['22-04', '0-24', '9-17'])
      expect(messageOf({ ANOMALY_QUIET_HOURS: good })).toBeUndefined();
    for (const bad of ['22', '22-25', '24-1', '4-4', '22:00-04:00'])
      expect(messageOf({ ANOMALY_QUIET_HOURS: bad })).toMatch(/^ANOMALY_QUIET_HOURS: must be two hours/);
    for (const good of ['0', '0.5', '1'])
      expect(messageOf({ ANOMALY_MAX_ERROR_RATIO: good })).toBeUndefined();
    for (const bad of ['1.1', '-0.1', 'x', '50'])
      expect(messageOf({ ANOMALY_MAX_ERROR_RATIO: bad })).toMatch(
        /^ANOMALY_MAX_ERROR_RATIO: must be a number from 0/,
      );
    expect(messageOf({ ANOMALY_ACTION: 'revoke' })).toMatch(/^ANOMALY_ACTION: must be one of/);
    expect(messageOf({ REDIS_URL: 'http://x' })).toMatch(/^REDIS_URL: must be/);
    for (const url of ['gitea', 'ftp://x', 'https://a:b@x', 'https://x/?a=b', 'https://x/#a'])
      for (const name of ['GITEA_URL', 'N8N_URL'])
        expect(messageOf({ [name]: url })).toMatch(new RegExp(`^${name}: must be http`));
  });

  it.each(['ANOMALY_X', 'ROTATION_X', 'RATE_LIMIT_X', 'CACHE_TTL', 'REVISION_X', 'AUDIT_X', 'APIKEYD_X'])(
    '%s: an unknown name of ours is refused',
    (name) => {
      expect(messageOf({ [name]: '1' })).toBe(`${name}: there is no such setting`);
    },
  );

  it('ignores variables of other programs', () =>
    expect(messageOf({ PATH: 'x', HTTPS_PROXY: 'y' })).toBeUndefined());

  it.each(['', 'host', 'host:', ':1', '1.2.3.4:70000', 'a b:1', '::1:50051'])(
    'refuses the address %j',
    (text) => {
      expect(() => parseAddress('GRPC_ADDR', text)).toThrow(/^GRPC_ADDR: must be host:port/);
    },
  );

  it('reads v4, names and v6 in brackets', () => {
    expect(parseAddress('A', '0.0.0.0:1')).toEqual({ host: '0.0.0.0', port: 1 });
    expect(parseAddress('A', '[::1]:50051')).toEqual({ host: '::1', port: 50_051 });
  });
});

describe('a start that fails', () => {
  const database = freshDatabase('sqlite', '');
  afterAll(() => database.drop());
  const blocker = createServer();
  const key = join(database.folder, 'admin.key');
  const base = {
    STORE_URL: database.url,
    APIKEYD_KEY_FILE: key,
    GRPC_ADDR: '127.0.0.1:0',
    HTTP_ADDR: '127.0.0.1:0',
    METRICS_ADDR: '127.0.0.1:0',
  };

  it.each<[string, Record<string, string>, number, RegExp]>([
    ['an unknown setting', { CACHE_TLL_SECONDS: '1' }, 78, /CACHE_TLL_SECONDS: there is no such setting/],
    ['a value out of bounds', { CACHE_TTL_SECONDS: '-1' }, 78, /CACHE_TTL_SECONDS: must be a whole number/],
    ['an unknown store', { STORE_URL: 'mysql://x' }, 78, /STORE_URL: must begin with/],
    [
      'a store that is not there',
      { STORE_URL: 'mongodb://user:hunter2secret@127.0.0.1:1/' },
      69,
      /STORE_URL: no MongoDB server answers/,
    ],
    ['a folder that cannot be made', { STORE_URL: 'sqlite:/dev/null/x.db' }, 69, /STORE_URL: cannot open/],
    ['a bad address', { GRPC_ADDR: 'nowhere' }, 78, /GRPC_ADDR: must be host:port/],
    [
      'a bootstrap key of a wrong shape',
      { ADMIN_BOOTSTRAP_KEY: 'hunter2secret' },
      78,
      /ADMIN_BOOTSTRAP_KEY: must be/,
    ],
    [
      'a TLS file that is not there',
      { TLS_CERT_FILE: '/nowhere', TLS_KEY_FILE: '/nowhere' },
      78,
      /TLS_CERT_FILE: cannot be read/,
    ],
    ['a TLS key without a certificate', { TLS_KEY_FILE: key }, 78, /TLS_KEY_FILE|TLS_CERT_FILE/],
  ])('%s', async (_what, settings, code, line) => {
    const ended = await apikeyd(['serve'], { env: { ...base, ...settings } });
    expect(ended.code, ended.stderr).toBe(code);
    const lines = ended.stderr
      .trim()
      .split('\n')
      .filter((text) => !text.startsWith('{'));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(line);
    expect(ended.stderr).not.toContain('hunter2secret');
  });

  it('a port that is taken', async () => {
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
    const { port } = blocker.address() as { port: number };
    const ended = await apikeyd(['serve'], { env: { ...base, GRPC_ADDR: `127.0.0.1:${port}` } });
    blocker.close();
    expect(ended.code).toBe(69);
    expect(ended.stderr).toContain(`GRPC_ADDR: cannot listen on 127.0.0.1:${port}`);
  });

  it('an unreadable admin key folder', async () => {
    const other = freshDatabase('sqlite', '');
    writeFileSync(join(other.folder, 'file'), '');
    const ended = await apikeyd(['serve'], {
      env: { ...base, STORE_URL: other.url, APIKEYD_KEY_FILE: join(other.folder, 'file/admin.key') },
    });
    expect(ended.code).toBe(78);
    expect(ended.stderr).toContain('APIKEYD_KEY_FILE: cannot be written');
    await other.drop();
  });
});

// If this fails, a file of keys is taken over in part, twice, or with its mistakes unseen.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { hashSecret } from '../../src/keys/secret.ts';
import { decide, decisionOf, onEachStore } from '../rpc/cases.ts';
import { apikeyd, type ServerProcess, spawnServer } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { type Clients, clientsOf, freshDatabase } from '../support/server.ts';

/** More than are on their way at once, so that there is a middle to be killed in. */
const MANY = process.env.LONG ? 100_000 : 8_000;

onEachStore('files of keys, on %s', (kind) => {
  const database = freshDatabase(kind, inject('mongoUri'));
  let server: ServerProcess;
  const env = () => ({
    APIKEYD_ADDRESS: `127.0.0.1:${server.ports.grpc}`,
    APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
  });
  const cli = (...args: string[]) => apikeyd(args, { env: env() });
  const file = (name: string, text: string) => {
    const path = join(database.folder, name);
    writeFileSync(path, text);
    return path;
  };
  let one: Clients | undefined;
  /** On one connection: a loop must not open hundreds, since the server limits their number. */
  const clients = () => {
    const adminKey = () => readFileSync(join(database.folder, 'admin.key'), 'utf8').trim();
    one ??= clientsOf(server.ports, 'grpc', adminKey());
    return one;
  };
  const countOfKeys = async () => {
    const { keysByType } = await clients().admin.getStats({});
    return Object.values(keysByType).reduce((sum, n) => sum + Number(n), 0);
  };
  beforeAll(async () => {
    server = await spawnServer(database.url, database.folder, { ACCEPT_IMPORTED_SHAPES: 'true' });
  });
  afterAll(async () => {
    await server.end('SIGTERM');
    await database.drop();
  });

  it('imports CSV with every column, and JSON lines', async () => {
    const csv = file(
      'all.csv',
      [
        'name,owner,type,scopes,limits,bucket,expires,addresses,metadata,rotate_every,hash',
        `"a, ""b""",team,service,traces:read;logs:*,5/60s burst=2/1s,shared,2099-01-31T12:00:00Z,10.0.0.0/8 ::1,team=x;tier=gold,90d,${hashSecret('one').toUpperCase()}`,
        '',
        `plain,,USER,a:b,,,,,,,${hashSecret('two')}`,
      ].join('\r\n'),
    );
    expect(await cli('api-key', 'import', csv, '--owner', 'me')).toMatchObject({
      code: 0,
      stdout: 'imported 2 keys\n',
    });
    const answer = await decide(clients(), 'one', { requiredScope: 'logs:write', clientIp: '10.1.2.3' });
    expect(answer.valid).toBe(true);
    const { key } = await clients().admin.getKey({ id: answer.keyId });
    expect(key).toMatchObject({
      name: 'a, "b"',
      ownerId: 'team',
      rateLimitBucket: 'shared',
      ipAllowlist: ['10.0.0.0/8', '::1/128'],
      metadata: { team: 'x', tier: 'gold' },
      rateLimits: [
        { name: 'per-60s', limit: 5n },
        { name: 'burst', limit: 2n },
      ],
    });
    expect(key?.rotateEvery?.seconds).toBe(90n * 86_400n);
    expect(key?.expireTime?.seconds).toBe(BigInt(Date.UTC(2099, 0, 31, 12) / 1000));
    const lines = file(
      'keys.jsonl',
      `${JSON.stringify({ name: 'three', owner: 'me', type: 'user', scopes: ['a:b'], hash: hashSecret('three') })}\n${JSON.stringify({ name: 'four', ownerId: 'me', keyType: 'KEY_TYPE_USER', scopes: 'a:b c:d', keyHash: hashSecret('four') })}\n`,
    );
    const imported = await cli('api-key', 'import', lines, '--json');
    const rows = imported.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(rows).toMatchObject([
      { line: 1, existing: false },
      { line: 2, existing: false },
    ]);
    expect(await decisionOf(clients(), 'four', { requiredScope: 'c:d' })).toBe('VALID');
    expect((await cli('api-key', 'import', lines)).stdout).toBe('imported 0 keys; 2 were here already\n');
  });

  it('names each invalid line of the whole file, and writes nothing', async () => {
    const before = await countOfKeys();
    const lines = Array.from({ length: 2_500 }, (_, i) => `k${i},o,user,a:b,${hashSecret(`many ${i}`)}`);
    lines[0] = `k,o,usr,a:b,${hashSecret('x')}`;
    lines[1] = 'k,o,user,a:b,sk_live_not_a_hash';
    lines[2] = 'k,o,user';
    lines[2_400] = `k,o,user,tra*,${hashSecret('y')}`;
    lines[2_450] = lines[700] ?? '';
    const ended = await cli(
      'api-key',
      'import',
      file('wrong.csv', ['name,owner,type,scopes,hash', ...lines].join('\n')),
    );
    expect(ended.code).toBe(1);
    const named = ended.stderr
      .split('\n')
      .slice(1, -1)
      .map((line) => Number(/^ {2}line (\d+): /.exec(line)?.[1]));
    expect(named).toEqual([2, 3, 4, 2_402, 2_452]);
    expect(ended.stderr).toContain('the same as in line 702');
    expect(ended.stderr).not.toContain('sk_live');
    expect(await countOfKeys()).toBe(before);
  });

  it(`imports ${MANY} keys, also when it is killed and run again`, async () => {
    const before = await countOfKeys();
    const rows = Array.from({ length: MANY }, (_, i) =>
      JSON.stringify({
        name: `key ${i}`,
        owner: `team-${i % 50}`,
        type: 'service',
        scopes: 'a:b',
        limits: '100/60s',
        hash: hashSecret(`${kind} ${i}`),
      }),
    );
    const path = file('many.jsonl', rows.join('\n'));
    const killed = apikeyd(['api-key', 'import', path], {
      env: env(),
      killWhen: async () => {
        try {
          return (await countOfKeys()) > before;
        } catch (error) {
          // The server may be too busy with the import to say: it is asked again.
          expect(ConnectError.from(error).code).toBe(Code.Unavailable);
          return false;
        }
      },
    });
    expect((await killed).code).toBe(null);
    const middle = (await countOfKeys()) - before;
    expect(middle).toBeGreaterThan(0);
    const begun = Date.now();
    const again = await cli('api-key', 'import', path);
    if (process.env.LONG)
      process.stderr.write(`${MANY - middle} keys on ${kind}: ${Date.now() - begun} ms\n`);
    expect(again).toMatchObject({ code: 0, stderr: '' });
    expect((await countOfKeys()) - before).toBe(MANY);
    const [, made, here] = /^imported (\d+) keys(?:; (\d+) were here already)?\n$/.exec(again.stdout) ?? [];
    expect(Number(made) + Number(here ?? 0)).toBe(MANY);
    for (const i of [0, 1, MANY - 1]) expect(await decisionOf(clients(), `${kind} ${i}`)).toBe('VALID');
    expect((await clients().admin.verifyAudit({})).intact).toBe(true);
  });

  it('creates many keys from a file, in its order, each once', async () => {
    const text = 'name,type,scopes,limits\n"b, c",service,a:b,5/60s\nd,user,a:b c:d,\n';
    const path = file('create.csv', text);
    const made = await cli('api-key', 'create', '--from', path);
    expect(made.code).toBe(0);
    const [header, ...rows] = made.stdout.trim().split('\n');
    expect(header).toBe('line,name,id,secret');
    expect(rows[0]).toMatch(/^2,"b, c",uid-apikey-[0-9a-f]{16},audit_v1_[\w-]{22}$/);
    const secrets = rows.map((row) => row.split(',').at(-1) ?? '');
    expect(await decisionOf(clients(), secrets[1] ?? '', { requiredScope: 'c:d' })).toBe('VALID');
    const again = (await cli('api-key', 'create', '--from', path)).stdout.trim().split('\n').slice(1);
    expect(again).toEqual(rows.map((row) => row.replace(/audit_v1_.*/, '')));
    const asJson = await cli(
      'api-key',
      'create',
      '--from',
      file('other.csv', 'name,type,scopes\nx,user,a:b\n'),
      '--json',
    );
    expect(JSON.parse(asJson.stdout)).toMatchObject({
      line: 2,
      name: 'x',
      secret: expect.stringMatching(/^audit_v1_/),
    });
    const before = await countOfKeys();
    for (const [content, says] of [
      ['name,type,scopes\ny,user,a:b\nz,user,tra*\n', 'line 3: scopes[0]'],
      [`name,type,scopes,hash\ny,user,a:b,${hashSecret('y')}\n`, 'line 2: hash: a new key has none'],
      ['name,kind\ny,user\n', 'there is no kind'],
      ['name,type,scopes,expires\ny,user,a:b,2020-01-01T00:00:00Z\n', 'line 2: expires: in the past'],
      ['', 'contains no keys'],
      ['name,type,scopes\n"y,user,a:b\n', 'not CSV'],
    ] as const) {
      const refused = await cli('api-key', 'create', '--from', file('bad.csv', content));
      expect(refused.stderr).toContain(says);
      expect(refused.code).toBeGreaterThan(0);
    }
    expect(await cli('api-key', 'create', 'name', '--from', path)).toMatchObject({ code: 2 });
    expect(await cli('api-key', 'create', '--from', join(database.folder, 'not there'))).toMatchObject({
      code: 2,
    });
    expect(await countOfKeys()).toBe(before);
  });
});

describe('completion', () => {
  requires('bash').it('completes commands and options in a real bash', {}, async () => {
    const script = (await apikeyd(['completion', 'bash'])).stdout;
    const complete = (...words: string[]) => {
      const line = `COMP_WORDS=(apikeyd ${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length}; _apikeyd; echo "\${COMPREPLY[*]}"`;
      return execFileSync('bash', ['--norc', '-c', `${script}\n${line}`], { encoding: 'utf8' }).trim();
    };
    expect(complete('api')).toBe('api-key');
    expect(complete('api-key', 're')).toBe('revoke');
    expect(complete('api-key', 'create', 'name', '--rate')).toBe('--rate-limit');
    expect(complete('audit', '').split(' ')).toEqual(
      expect.arrayContaining(['list', 'tail', 'verify', 'export']),
    );
    expect(complete('nonsense', '--vers')).toBe('--version');
  });

  it('supports fish and zsh, and names the supported shells', async () => {
    expect((await apikeyd(['completion', 'fish'])).stdout).toMatch(/^complete -c apikeyd -f .* -a api-key$/m);
    expect((await apikeyd(['completion', 'zsh'])).stdout).toContain('bashcompinit');
    expect(await apikeyd(['completion', 'cmd'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('bash, zsh, fish'),
    });
  });
});

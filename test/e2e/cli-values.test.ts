// If this fails, the command line stores another value than was given, or refuses one and does not say which it was.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hashSecret, mintSecret } from '../../src/keys/secret.ts';
import { expectFields, type Fields, fields, type KeyJson, toJson } from '../rpc/any-fields.ts';
import { apikeyd, type Finished, type ServerProcess, spawnServer } from '../support/process.ts';
import { freshDatabase } from '../support/server.ts';

const SEED = 1516;
const ROWS = process.env.LONG ? 5_000 : 200;
/** Each is made, changed and shown by a process of its own. */
const KEYS = process.env.LONG ? 100 : 2;
const AT_ONCE = 2;

/** The name of a field of the API, a column, or an option in errors. */
const NAMED =
  /(name|owner_id|owner|rate_limit_bucket|metadata|rate_limits|expire_time|rotate_every|local_validation|argument)\S*:|option '--(rate-limit|rotate-every|expires-at|metadata) /;

/** In whole seconds, as options have them, and with limits that have names. */
const inSeconds = ({ rateLimits, rotateEvery, ...rest }: Fields): Fields => {
  const whole = (ms: number) => Math.trunc(ms / 1_000) * 1_000 + 0;
  const named = rateLimits?.filter(({ name }) => /^[a-z.]+$/.test(name));
  return {
    ...rest,
    ...(named === undefined
      ? {}
      : { rateLimits: named.map((each) => ({ ...each, window: whole(each.window) })) }),
    ...(rotateEvery === undefined ? {} : { rotateEvery: whole(rotateEvery) }),
  };
};

/** Texts that an argument of a process can hold: no NUL, no half of a surrogate pair, no metadata name with =. */
const fitsArguments = ({ name, ownerId, rateLimitBucket = '', metadata = {} }: Fields) =>
  [name, ownerId, rateLimitBucket, ...Object.entries(metadata).flat()].every(
    (text) => text.isWellFormed() && !text.includes('\0'),
  ) && Object.keys(metadata).every((key) => !key.includes('='));

function optionsOf({
  ownerId,
  rateLimitBucket,
  metadata,
  rateLimits,
  rotateEvery,
  localValidation,
}: Fields): string[] {
  return [
    ...['--owner', ownerId],
    ...(rateLimitBucket === undefined ? [] : ['--bucket', rateLimitBucket]),
    ...Object.entries(metadata ?? {}).flatMap(([key, value]) => ['--metadata', `${key}=${value}`]),
    ...(rateLimits ?? []).flatMap(({ name, limit, window }) => [
      '--rate-limit',
      `${name}=${limit}/${window / 1_000}s`,
    ]),
    ...(rotateEvery === undefined ? [] : ['--rotate-every', `${rotateEvery / 1_000}s`]),
    ...(localValidation === true ? ['--local-validation'] : []),
  ];
}

describe('any value on the command line', () => {
  const database = freshDatabase('sqlite', '');
  let server: ServerProcess;
  const cli = (...args: string[]) =>
    apikeyd(['api-key', ...args], {
      env: {
        APIKEYD_ADDRESS: `127.0.0.1:${server.ports.grpc}`,
        APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
      },
    });
  const file = (name: string, content: string | Buffer) => {
    const path = join(database.folder, name);
    writeFileSync(path, content);
    return path;
  };
  /** The refused lines of a file, and the error of each. */
  const refusals = ({ stderr }: Finished) =>
    new Map([...stderr.matchAll(/^ {2}line (\d+): (.*)$/gm)].map(([, line, text]) => [Number(line), text]));
  beforeAll(async () => {
    server = await spawnServer(database.url, database.folder);
  });
  afterAll(async () => {
    await server.end('SIGTERM');
    await database.drop();
  });

  it('import and list: the values of the file come back, or its line is refused by field', async () => {
    const rows = fc.sample(fields, { seed: SEED, numRuns: ROWS });
    const lines = rows.map((row) => JSON.stringify({ ...toJson(row), keyHash: hashSecret(mintSecret()) }));
    const refused = await cli('import', file('all.jsonl', lines.join('\n')));
    expect(refused.code).toBe(1);
    const wrong = refusals(refused);
    for (const text of wrong.values()) expect(text).toMatch(NAMED);
    // The canary: both kinds were tried.
    expect(Math.min(wrong.size, ROWS - wrong.size)).toBeGreaterThan(ROWS / 10);
    const good = rows.filter((_, i) => !wrong.has(i + 1));
    const path = file('good.jsonl', lines.filter((_, i) => !wrong.has(i + 1)).join('\n'));
    const imported = await cli('import', path, '--json');
    expect(imported).toMatchObject({ code: 0, stderr: '' });
    const ids = imported.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).id);
    const { keys } = JSON.parse((await cli('list', '--json', '--limit', String(ROWS + 10))).stdout);
    const byId = new Map<string, KeyJson>(keys.map((key: KeyJson) => [key.id, key]));
    // A line that names no owner has the one of --owner.
    for (const [i, row] of good.entries())
      expectFields(byId.get(ids[i]) ?? {}, { ...row, ownerId: row.ownerId || 'unowned' });
  });

  const timeout = process.env.LONG ? 1_800_000 : 180_000;
  it('create, update and get: the arguments come back, or are refused by name', { timeout }, async () => {
    const given = fields.filter(fitsArguments).map(inSeconds);
    const pairs = fc.sample(fc.tuple(given, given), { seed: SEED, numRuns: KEYS });
    let [made, not] = [0, 0];
    const taken = ({ code, stderr, stdout }: Finished): KeyJson | undefined => {
      if (code === 0) made++;
      else not++;
      if (code === 0) return JSON.parse(stdout).key;
      expect(stderr).toMatch(NAMED);
      return undefined;
    };
    const each = async ([first, second]: [Fields, Fields]) => {
      const { expireTime } = first;
      const expiry = expireTime === undefined ? [] : ['--expires-at', new Date(expireTime).toISOString()];
      const kind = ['--key-type', 'service', '--scope', 'a:b', '--json'];
      const key = taken(await cli('create', ...kind, ...expiry, ...optionsOf(first), '--', first.name));
      if (key === undefined) return;
      expectFields(key, first);
      const id = String(key.id);
      const off = second.localValidation === false ? ['--no-local-validation'] : [];
      const options = [...optionsOf(second), ...off];
      const changed = taken(await cli('update', id, '--json', '--name', second.name, ...options));
      const { expireTime: _unchanged, ...change } = second;
      // There is no option for an empty list of limits, or for no metadata.
      if (change.rateLimits?.length === 0) delete change.rateLimits;
      if (Object.keys(change.metadata ?? {}).length === 0) delete change.metadata;
      const expected = changed === undefined ? first : { ...first, ...change };
      if (changed !== undefined) expectFields(changed, expected);
      expectFields(JSON.parse((await cli('get', id, '--json')).stdout).key, expected);
    };
    const waiting = [...pairs];
    const work = async () => {
      for (let pair = waiting.shift(); pair !== undefined; pair = waiting.shift()) await each(pair);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    expect(Math.min(made, not)).toBeGreaterThan(0);
  });

  it('a file with any other JSON or cell: each invalid line is named with its field', async () => {
    const cases: readonly [line: object | string, said: string][] = [
      [{ expireTime: '2027-02-30T00:00:00Z' }, 'expire_time: a time of the years 1 to 9999'],
      [{ expires: '2027-02-30T00:00:00Z' }, 'expires: a time like'],
      [{ rateLimits: [{ name: 'a', limit: '0x10' }] }, 'rate_limits[0].limit: '],
      [{ rateLimits: [{ name: 'a', limit: '1', window: '1s1s' }] }, 'rate_limits[0].window: '],
      [{ rateLimits: [{ limit: '9'.repeat(20) }] }, 'rate_limits[0].limit: 0 to 18446744073709551615'],
      [{ limits: `${'9'.repeat(30)}/60s` }, 'limits: a limit like'],
      [{ rotateEvery: '315576000001s' }, 'rotate_every: a duration'],
      [{ rotate_every: `${'9'.repeat(400)}d` }, 'rotate_every: a length like'],
      [{ name: '\ud800' }, 'name: no halves of surrogate pairs'],
      [{ metadata: 'a=1;a=2' }, 'metadata: a is given twice'],
      [{ ownerId: 'b' }, 'ownerId: is given twice'],
      [{ nonsense: 1 }, 'there is no nonsense'],
      ['null', 'not an object'],
    ];
    const lines = cases.map(([fields]) => {
      const line = { name: 'n', owner: 'o', type: 'user', scopes: 'a:b', hash: hashSecret(mintSecret()) };
      return typeof fields === 'string' ? fields : JSON.stringify({ ...line, ...fields });
    });
    const refused = await cli('import', file('wrong.jsonl', lines.join('\n')));
    expect(refused.code).toBe(1);
    const told = refusals(refused);
    expect(cases.map((_, i) => told.get(i + 1))).toEqual(
      cases.map(([, said]) => expect.stringContaining(said)),
    );
  });

  it('a file of 20 000 invalid lines: all are printed, also to a slow pipe', async () => {
    const { code, stderr } = await cli('import', file('long.jsonl', '{\n'.repeat(20_000)));
    expect(code).toBe(1);
    expect(stderr.trimEnd().split('\n').slice(1)).toEqual(
      Array.from({ length: 20_000 }, (_, i) => `  line ${i + 1}: not JSON`),
    );
  });

  it('a file or an argument that is not UTF-8 is refused with that reason', async () => {
    const csv = `name,type,scopes,hash\nn,user,a:b,${hashSecret('x')}\nZo\xeb,user,a:b,${hashSecret('y')}\n`;
    const refused = await cli('import', file('latin1.csv', Buffer.from(csv, 'latin1')));
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('line 3 is not UTF-8') });
    // As Node gives a byte that is none.
    const typed = await cli('create', 'Zo\ufffd', '--key-type', 'user', '--scope', 'a:b');
    expect(typed).toMatchObject({ code: 2, stderr: expect.stringContaining('argument: is not UTF-8') });
  });

  it('an option out of bounds, or with a repeated name, is refused by name', async () => {
    for (const options of [
      ['--rate-limit', `${'9'.repeat(30)}/60s`],
      ['--rotate-every', `${'9'.repeat(400)}d`],
      ['--metadata', 'a=1', '--metadata', 'a=2'],
    ])
      expect(await cli('create', 'n', '--key-type', 'user', '--scope', 'a:b', ...options)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(`option '${options[0]} `),
      });
  });
});

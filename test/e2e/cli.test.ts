// If this fails, people at a terminal cannot make or end keys, or a secret shows where it must not.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { decisionOf } from '../rpc/cases.ts';
import { certificate } from '../support/certificate.ts';
import { apikeyd, type ServerProcess, spawnServer } from '../support/process.ts';
import { clientsOf, freshDatabase } from '../support/server.ts';

describe('apikeyd', () => {
  const database = freshDatabase('sqlite', '');
  let server: ServerProcess;
  const cli = (args: string[], input = '') =>
    apikeyd(args, {
      input,
      env: {
        APIKEYD_ADDRESS: `127.0.0.1:${server.ports.grpc}`,
        APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
      },
    });
  const create = async (...more: string[]) =>
    JSON.parse(
      (await cli(['api-key', 'create', 'n', '--key-type', 'user', '--scope', 'a:b', '--json', ...more]))
        .stdout,
    );
  beforeAll(async () => {
    server = await spawnServer(database.url, database.folder);
  });
  afterAll(async () => {
    await server.end('SIGTERM');
    await database.drop();
  });

  it('shows, changes and expires keys, and counts them', async () => {
    const { key } = await create('--metadata', 'team=a');
    const shown = await cli(['api-key', 'get', key.id]);
    expect(shown.stdout).toMatch(/^id +uid-apikey-/);
    expect(shown.stdout).toMatch(/metadata +team=a/);
    const changed = await cli([
      'api-key',
      'update',
      key.id,
      '--scope',
      'c:d',
      '--rate-limit',
      '5/60s',
      '--disable',
      '--etag',
      key.etag,
    ]);
    expect(changed).toMatchObject({
      code: 0,
      stdout: `changed scopes, rate_limits, disabled of ${key.id}\n`,
    });
    const stale = await cli(['api-key', 'update', key.id, '--name', 'late', '--etag', key.etag]);
    expect(stale).toMatchObject({ code: 1, stderr: expect.stringContaining('ETAG_MISMATCH') });
    expect((await cli(['api-key', 'update', key.id])).code).toBe(2);
    expect((await cli(['api-key', 'update', key.id, '--enable', '--disable'])).code).toBe(2);
    const enabled = JSON.parse(
      (await cli(['api-key', 'update', key.id, '--enable', '--unlimited', '--json'])).stdout,
    );
    expect(enabled.key).toMatchObject({ scopes: ['c:d'], status: 'KEY_STATUS_ACTIVE' });
    expect(enabled.key.rateLimits).toBeUndefined();
    expect((await cli(['api-key', 'expire', key.id])).stdout).toContain(`${key.id} expires at 20`);
    expect((await cli(['api-key', 'expire', key.id, '--at', 'tomorrow'])).code).toBe(2);
    expect((await cli(['api-key', 'stats'])).stdout).toMatch(/keys EXPIRED +[1-9]/);
  });

  it('lists and resolves anomalies, and watches alerts', async () => {
    const { key, secret } = await create();
    const { auth } = clientsOf(
      server.ports,
      'grpc',
      readFileSync(join(database.folder, 'admin.key'), 'utf8').trim(),
    );
    for (let i = 0; i < 6; i++) await auth.validateKey({ key: secret, clientIp: `192.0.2.${i + 1}` });
    const listed = async (...more: string[]) =>
      (await cli(['anomalies', 'list', '--key', key.id, ...more])).stdout;
    while (!(await listed()).includes('MULTIPLE_IPS'));
    const id = /anomaly-\w+/.exec(await listed())?.[0] ?? '';
    expect((await cli(['anomalies', 'resolve', id])).stdout).toMatch(/^resolved anomaly-/);
    expect(await listed()).not.toContain(id);
    expect(await listed('--all')).toContain('RESOLVED');
    const since = new Date(Date.now() - 60_000).toISOString();
    const env = {
      PATH: process.env.PATH ?? '',
      APIKEYD_ADDRESS: `127.0.0.1:${server.ports.grpc}`,
      APIKEYD_KEY_FILE: join(database.folder, 'admin.key'),
    };
    const main = new URL('../../src/main.ts', import.meta.url).pathname;
    const watching = spawn(process.execPath, [main, 'alerts', 'watch', '--since', since], { env });
    let seen = '';
    watching.stdout.on('data', (chunk: Buffer) => {
      seen += chunk;
    });
    while (!seen.includes(key.id)) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(seen).toMatch(/ANOMALY +key uid-apikey-\w+ is used from more addresses/);
    watching.kill('SIGINT');
  });

  it('config prints the effective settings, and no secret', async () => {
    const env = { REDIS_URL: 'redis://:hunter2@localhost', LOG_LEVEL: 'warn' };
    const { stdout } = await apikeyd(['config'], { env });
    expect(stdout).toMatch(/LOG_LEVEL +warn +environment/);
    expect(stdout).toMatch(/REDIS_URL +\(set\) +environment/);
    expect(stdout).toMatch(/CACHE_TTL_SECONDS +300 +default/);
    expect(stdout).not.toContain('hunter2');
    expect(await apikeyd(['config'], { env: { LOG_LEVEL: 'loud' } })).toMatchObject({ code: 78 });
  });

  it('lists, exports and verifies the audit, and finds events that were removed since an export', async () => {
    await create();
    const listed = await cli(['audit', 'list', '--outcome', 'OK', '--limit', '2']);
    expect(listed.stdout).toMatch(/^TIME +OUTCOME +METHOD/);
    expect(listed.stdout).toContain('ApiKeyAdmin/CreateKey');
    const exported = (await cli(['audit', 'export'])).stdout.trim().split('\n');
    expect(exported.length).toBeGreaterThan(3);
    expect(JSON.parse(exported[0] ?? '')).toMatchObject({ hash: expect.stringMatching(/^[0-9a-f]{64}$/) });
    const { heads } = JSON.parse(exported.at(-1) ?? '');
    const kept = join(database.folder, 'kept.jsonl');
    writeFileSync(kept, exported.join('\n'));
    const intact = await cli(['audit', 'verify', '--heads', kept]);
    expect(intact).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^intact: \d+ events in \d+ chains/),
    });
    heads[0].sequence = '1000000';
    writeFileSync(kept, JSON.stringify({ heads }));
    const gone = await cli(['audit', 'verify', '--heads', kept]);
    expect(gone).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/^TRUNCATED: chain \w+, place 1000000/),
    });
    expect(await cli(['audit', 'verify', '--heads', join(database.folder, 'admin.key')])).toMatchObject({
      code: 2,
    });
  });

  it('creates a key with every option, and prints the secret once, alone with --quiet', async () => {
    const made = await create(
      '--ttl',
      '30',
      '--rate-limit',
      'burst=10/1s',
      '--rate-limit',
      '100/60s',
      '--bucket',
      'shared',
      '--allow-ip',
      '10.0.0.0/8',
      '--metadata',
      'team=a=b',
      '--owner',
      'me',
    );
    expect(made.key).toMatchObject({
      ownerId: 'me',
      keyType: 'KEY_TYPE_USER',
      rateLimits: [
        { name: 'burst', limit: '10', window: '1s' },
        { name: 'per-60s', limit: '100', window: '60s' },
      ],
      rateLimitBucket: 'shared',
      ipAllowlist: ['10.0.0.0/8'],
      metadata: { team: 'a=b' },
    });
    const quiet = await cli([
      'api-key',
      'create',
      'n',
      '--key-type',
      'USER',
      '--scope',
      'a',
      '--expires-at',
      '2999-01-01T00:00:00+02:00',
      '--quiet',
    ]);
    expect(quiet.stdout).toMatch(/^audit_v1_[\w-]{22}\n$/);
    expect(quiet.stderr).toBe('');
  });

  it('exits with 0 for VALID, 1 for a denial, 2 for wrong usage and 69 for an unreachable server', async () => {
    const { secret } = await create();
    expect(await cli(['api-key', 'validate', '-', '--scope', 'a:b'], `${secret}\n`)).toMatchObject({
      code: 0,
    });
    const dry = await cli(['api-key', 'validate', '-', '--scope', 'x', '--dry-run'], secret);
    expect(dry).toMatchObject({ code: 1, stdout: expect.stringMatching(/^INSUFFICIENT_SCOPE\n/) });
    expect(await cli(['api-key', 'revoke', 'uid-apikey-0000000000000000'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('KEY_NOT_FOUND'),
    });
    expect(await cli(['api-key', 'create', 'n', '--key-type', 'user', '--scope', 'tra*'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('scopes[0]'),
    });
    for (const wrong of [
      ['api-key', 'create'],
      ['nothing'],
      ['api-key', 'create', 'n', '--key-type', 'cat', '--scope', 'a'],
      ['api-key', 'create', 'n', '--key-type', 'user', '--scope', 'a', '--expires-at', 'tomorrow'],
      ['api-key', 'validate', secret],
    ]) {
      const ended = await cli(wrong);
      expect(ended.code, wrong.join(' ')).toBe(2);
      expect(ended.stderr + ended.stdout).not.toContain(secret);
    }
    const nobody = await apikeyd([
      'api-key',
      'list',
      '--address',
      '127.0.0.1:1',
      '--key-file',
      join(database.folder, 'admin.key'),
    ]);
    expect(nobody).toMatchObject({
      code: 69,
      stderr: expect.stringContaining('no server answers at 127.0.0.1:1'),
    });
    expect(await apikeyd(['api-key', 'list', '--key-file', '/nowhere'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('--key-file'),
    });
  });

  it('api-key list prints a table or JSON', async () => {
    await create('--owner', 'lister');
    const table = await cli(['api-key', 'list', '--owner', 'lister']);
    expect(table.stdout).toMatch(
      /^ID +STATUS +TYPE +OWNER +NAME +EXPIRES +SCOPES\nuid-apikey-\w+ +ACTIVE +USER +lister +n +- +a:b\n$/,
    );
    expect(
      JSON.parse((await cli(['api-key', 'list', '--owner', 'lister', '--json'])).stdout).keys,
    ).toHaveLength(1);
    expect((await cli(['--help'])).code).toBe(0);
  });

  it('recovers an admin key directly from the store, but not while a server has it open', async () => {
    const other = freshDatabase('sqlite', '');
    const env = { STORE_URL: other.url, APIKEYD_KEY_FILE: join(other.folder, 'admin.key') };
    const first = await spawnServer(other.url, other.folder);
    expect(await apikeyd(['recover'], { env })).toMatchObject({
      code: 69,
      stdout: '',
      stderr: expect.stringContaining('another process is using'),
    });
    await first.end('SIGTERM');
    const recovered = await apikeyd(['recover'], { env });
    expect(recovered.stdout).toMatch(/^audit_v1_[\w-]{22}\n$/);
    expect(recovered.stderr).not.toContain(recovered.stdout.trim());
    const again = await spawnServer(other.url, other.folder);
    const secret = recovered.stdout.trim();
    const clients = clientsOf(again.ports, 'grpc', secret);
    expect(await decisionOf(clients, secret, { requiredScope: 'apikeys:admin' })).toBe('VALID');
    const { events } = await clients.admin.listAuditEvents({ method: 'apikeyd/recover' });
    expect(events).toHaveLength(1);
    await again.end('SIGTERM');
    await other.drop();
  });
});

describe('TLS', () => {
  const database = freshDatabase('sqlite', '');
  const file = (name: string) => join(database.folder, name);
  let server: ServerProcess;
  beforeAll(async () => {
    const issuer = certificate({ name: 'ca' });
    const pairs = {
      ca: issuer,
      server: certificate({ issuer }),
      client: certificate({ name: 'client', issuer }),
    };
    for (const [name, { cert, key }] of Object.entries(pairs)) {
      writeFileSync(file(`${name}.pem`), cert);
      writeFileSync(file(`${name}.key`), key);
    }
    server = await spawnServer(database.url, database.folder, {
      TLS_CERT_FILE: file('server.pem'),
      TLS_KEY_FILE: file('server.key'),
      TLS_CLIENT_CA_FILE: file('ca.pem'),
    });
  });
  afterAll(async () => {
    await server.end('SIGTERM');
    await database.drop();
  });

  it('serves both listeners only to clients with a certificate', async () => {
    const secret = readFileSync(file('admin.key'), 'utf8').trim();
    const interceptors = [
      (next: (r: never) => never) => (request: { header: Headers }) => {
        request.header.set('authorization', `Bearer ${secret}`);
        return next(request as never);
      },
    ] as never;
    const own = {
      ca: readFileSync(file('ca.pem')),
      cert: readFileSync(file('client.pem')),
      key: readFileSync(file('client.key')),
    };
    const options = { interceptors, nodeOptions: own };
    const transports = [
      createGrpcTransport({ ...options, baseUrl: `https://127.0.0.1:${server.ports.grpc}` }),
      createConnectTransport({
        ...options,
        httpVersion: '2',
        baseUrl: `https://127.0.0.1:${server.ports.http}`,
      }),
      createConnectTransport({
        ...options,
        httpVersion: '1.1',
        baseUrl: `https://127.0.0.1:${server.ports.http}`,
      }),
    ];
    for (const transport of transports)
      expect((await createClient(ApiKeyAuth, transport).validateKey({ key: secret })).valid).toBe(true);
    for (const port of [server.ports.grpc, server.ports.http]) {
      const refused = await new Promise<boolean>((resolve) => {
        const socket = tlsConnect({ port, host: '127.0.0.1', ca: own.ca, ALPNProtocols: ['h2'] });
        socket.on('error', () => resolve(true));
        socket.on('close', () => resolve(true));
        socket.on('data', () => resolve(false));
      });
      expect(refused).toBe(true);
    }
  });
});

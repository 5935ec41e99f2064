// If this fails, a name that another program cuts at a NUL passes for another name, or a terminal obeys the name of a key.
import { globSync, readFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { create } from '@bufbuild/protobuf';
import { MongoClient } from 'mongodb';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { CreateKeyRequestSchema, ImportedKeySchema } from '../../gen/apikey/v1/admin_pb.ts';
import { RevokeReason } from '../../gen/apikey/v1/key_pb.ts';
import { plain, printable, table } from '../../src/cli/output.ts';
import { Violations } from '../../src/keys/errors.ts';
import { hashSecret, mintSecret } from '../../src/keys/secret.ts';
import { MethodNames } from '../../src/rpc/method-names.ts';
import { inspectStore } from '../../src/store/open-store.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { decide, failureOf, forEveryMount, makeKey, onEachStore } from './cases.ts';

const NUL = 'alice\0mallory';
const ODD = [NUL, 'two\nlines', '\u001b[2Jgone', 'del\u007f', 'c1\u009b31m'];
const UNKNOWN = 'uid-apikey-0000000000000000';

/** Every text field, and a call that sends a text in it. */
const TEXTS: readonly [
  field: string,
  call: (clients: Clients, text: string, id: string) => Promise<unknown>,
][] = [
  ['name', (c, name) => makeKey(c, { name })],
  ['owner_id', (c, ownerId) => makeKey(c, { ownerId })],
  ['scopes[0]', (c, text) => makeKey(c, { scopes: [text] })],
  ['rate_limit_bucket', (c, rateLimitBucket) => makeKey(c, { rateLimitBucket })],
  ['ip_allowlist[0]', (c, text) => makeKey(c, { ipAllowlist: [text] })],
  ['metadata[team]', (c, team) => makeKey(c, { metadata: { team } })],
  ['metadata', (c, text) => makeKey(c, { metadata: { [text]: 'x' } })],
  ['request_id', (c, requestId) => makeKey(c, { requestId })],
  ['key.name', (c, name, id) => c.admin.updateKey({ key: { id, name }, updateMask: { paths: ['name'] } })],
  [
    'key.owner_id',
    (c, ownerId, id) => c.admin.updateKey({ key: { id, ownerId }, updateMask: { paths: ['owner_id'] } }),
  ],
  [
    'key.etag',
    (c, etag, id) => c.admin.updateKey({ key: { id, etag }, updateMask: { paths: ['disabled'] } }),
  ],
  ['update_mask', (c, text, id) => c.admin.updateKey({ key: { id }, updateMask: { paths: [text] } })],
  ['id', (c, id) => c.admin.getKey({ id })],
  ['note', (c, note, id) => c.admin.revokeKey({ id, reason: RevokeReason.SUPERSEDED, note })],
  ['owner_id', (c, ownerId) => c.admin.listKeys({ ownerId })],
  ['query', (c, query) => c.admin.listKeys({ query })],
  ['page_token', (c, pageToken) => c.admin.listKeys({ pageToken })],
  ['key_id', (c, keyId) => c.admin.listAuditEvents({ keyId })],
  ['caller_key_id', (c, callerKeyId) => c.admin.listAuditEvents({ callerKeyId })],
  ['method', (c, method) => c.admin.listAuditEvents({ method })],
  ['outcome', (c, outcome) => c.admin.listAuditEvents({ outcome })],
  ['client_ip', (c, clientIp) => c.admin.listAuditEvents({ clientIp })],
  ['key_id', (c, keyId) => c.admin.listRotations({ keyId })],
  ['key_id', (c, keyId) => c.admin.listAnomalies({ keyId })],
  ['id', (c, id) => c.admin.resolveAnomaly({ id })],
  ['client_ip', (c, clientIp) => c.admin.clearLockout({ clientIp })],
  [
    'expected_heads[0].process_id',
    (c, processId) =>
      c.admin.verifyAudit({ expectedHeads: [{ processId, sequence: 1n, hash: 'a'.repeat(64) }] }),
  ],
  ['keys[0].name', (c, name) => importOne(c, { name })],
  ['keys[0].owner_id', (c, ownerId) => importOne(c, { ownerId })],
  ['keys[0].key_hash', (c, keyHash) => importOne(c, { keyHash })],
  ['required_scope', (c, requiredScope) => decide(c, mintSecret(), { requiredScope })],
  ['client_ip', (c, clientIp) => decide(c, mintSecret(), { clientIp })],
  ['request_id', (c, requestId) => decide(c, mintSecret(), { requestId })],
  [
    'requests[0].request_id',
    (c, requestId) => c.auth.batchValidateKeys({ requests: [{ key: 'x', requestId }] }),
  ],
];

function importOne({ admin }: Clients, fields: object) {
  const { name, ownerId, keyType, scopes } = create(CreateKeyRequestSchema, {
    name: 'n',
    ownerId: 'o',
    keyType: 1,
    scopes: ['a'],
  });
  const key = { name, ownerId, keyType, scopes, keyHash: hashSecret(mintSecret()), ...fields };
  return admin.importKeys({ keys: [create(ImportedKeySchema, key)] });
}

forEveryMount((mount) => {
  const { transport } = mount;
  it('an owner "alice<NUL>mallory" is not mistaken for alice: texts with control characters are refused', async () => {
    const { clients } = mount;
    const { id } = await makeKey(clients);
    for (const [i, [field, call]] of TEXTS.entries())
      for (const text of new Set([NUL, ODD[i % ODD.length] ?? NUL]))
        expect([field, await failureOf(call(clients, text, id))]).toMatchObject([
          field,
          { code: 'InvalidArgument', reason: 'INVALID_REQUEST', fields: expect.arrayContaining([field]) },
        ]);
  });

  it('texts of every other kind are returned unchanged', async () => {
    const { clients } = mount;
    const text = ' Zoë 名 👩‍👩‍👧 \u202e $where {a.b} ../ ';
    const { id } = await makeKey(clients, {
      name: text,
      ownerId: text,
      rateLimitBucket: text,
      metadata: { [text]: text, __proto__x: '', constructor: text },
    });
    const { key } = await clients.admin.getKey({ id });
    expect(key).toMatchObject({ name: text, ownerId: text, rateLimitBucket: text });
    expect(Object.entries(key?.metadata ?? {}).sort()).toEqual(
      [
        [text, text],
        ['__proto__x', ''],
        ['constructor', text],
      ].sort(),
    );
  });

  it("an end client's user agent cannot prevent a decision: it is recorded as a text", async () => {
    const { clients } = mount;
    const requestId = `agent-${transport}`;
    await decide(clients, mintSecret(), { userAgent: `${'a'.repeat(511)}👩`, requestId });
    await decide(clients, mintSecret(), { userAgent: 'a\u0089b\0c', requestId });
    const { events } = await clients.admin.listAuditEvents({ method: 'ValidateKey', pageSize: 2 });
    expect(events.map(({ userAgent }) => userAgent)).toEqual(['a\ufffdb\ufffdc', `${'a'.repeat(511)}\ufffd`]);
    expect(await clients.admin.verifyAudit({})).toMatchObject({ intact: true });
  });

  it('a secret sent as an id is in the audit only by its fingerprint', async () => {
    const { clients } = mount;
    const secret = mintSecret();
    const fingerprint = `sha256:${hashSecret(secret).slice(0, 8)}`;
    await failureOf(clients.admin.listAuditEvents({ keyId: secret }));
    await failureOf(clients.admin.getKey({ id: secret }));
    await failureOf(clients.admin.resolveAnomaly({ id: secret }));
    await decide(clients, mintSecret(), { requestId: secret, requiredScope: secret, userAgent: secret });
    await makeKey(clients, { requestId: `x ${secret}` });
    const { events } = await clients.admin.listAuditEvents({ pageSize: 10 });
    expect(JSON.stringify(events, (_, value) => (typeof value === 'bigint' ? 0 : value))).not.toContain(
      secret,
    );
    expect(events.find(({ method }) => method.endsWith('/ValidateKey'))).toMatchObject({
      requestId: fingerprint,
      requiredScope: fingerprint,
      userAgent: fingerprint,
    });
  });

  it('ListAuditEvents filters by a method name in each form, and refuses an unknown method', async () => {
    const { clients } = mount;
    await decide(clients, mintSecret());
    for (const method of ['ValidateKey', 'ApiKeyAuth/ValidateKey', 'apikey.v1.ApiKeyAuth/ValidateKey']) {
      const { events } = await clients.admin.listAuditEvents({ method, pageSize: 1 });
      expect(events[0]?.method).toBe('apikey.v1.ApiKeyAuth/ValidateKey');
    }
    for (const method of ['Validatekey', 'Key', 'ApiKeyAdmin/ValidateKey', '/', 'v1.ApiKeyAuth'])
      expect(await failureOf(clients.admin.listAuditEvents({ method }))).toMatchObject({
        fields: ['method'],
      });
  });
});

onEachStore('%s', (kind) => {
  const database = freshDatabase(kind, inject('mongoUri'));
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder);
  });
  afterAll(() => database.drop());

  it('doctor names keys with texts that were stored before such texts were refused', async () => {
    const good = await makeKey(server.clients('grpc'));
    const odd = await makeKey(server.clients('grpc'), { metadata: { team: 'x' } });
    await server.stop();
    const before = await inspectStore(database.url);
    expect(before.find(({ what }) => what === 'texts')).toMatchObject({ ok: true });
    if (kind === 'sqlite') {
      const db = new DatabaseSync(database.url.slice('sqlite:'.length));
      db.prepare(
        "UPDATE api_keys SET owner_id = 'alice' || char(0) || 'mallory', metadata = ? WHERE id = ?",
      ).run(JSON.stringify({ team: 'a\nb' }), odd.id);
      db.close();
    } else {
      const client = await new MongoClient(database.url).connect();
      const set = { owner_id: NUL, metadata: [{ name: 'team', value: 'a\nb' }] };
      await client.db().collection<{ _id: string }>('api_keys').updateOne({ _id: odd.id }, { $set: set });
      await client.close();
    }
    const after = (await inspectStore(database.url)).find(({ what }) => what === 'texts');
    expect(after).toMatchObject({
      ok: false,
      text: expect.stringContaining(`${odd.id} (owner_id, metadata)`),
    });
    expect(after?.text).not.toContain(good.id);
  });
});

it('ListAuditEvents finds the calls of every gateway', () => {
  const names = new MethodNames([]);
  const found = new Violations();
  for (const file of globSync('src/gateways/*.ts'))
    for (const [, method = ''] of readFileSync(file, 'utf8').matchAll(/const METHOD = '(.+)'/g))
      names.resolve(found, 'method', method);
  expect(found.found).toEqual([]);
});

describe('the command line', () => {
  it('shows terminal escapes and marks of text direction as text', () => {
    const name = `\u001b[2J\u001b]0;x\u0007\u009b31m\u202egnp.exe\n${UNKNOWN}`;
    expect(plain(name)).toBe(`\\u001b[2J\\u001b]0;x\\u0007\\u009b31m\\u202egnp.exe\\u000a${UNKNOWN}`);
    expect(table(['NAME'], [[name]]).split('\n')).toEqual(['NAME', plain(name)]);
    // Also in JSON, which stays the same JSON.
    const json = JSON.stringify({ name }, null, 2);
    expect(printable(json)).not.toMatch(/(?!\n)\p{Cc}|\u202e/u);
    expect(JSON.parse(printable(json))).toEqual({ name });
  });
});

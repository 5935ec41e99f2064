// If this fails, a value is changed on its way to the store and back, or refused without its field being named.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { plain, printable } from '../../src/cli/output.ts';
import { hashSecret, mintSecret } from '../../src/keys/secret.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { anyText, expectFields, type Fields, fields, type KeyJson, toJson } from './any-fields.ts';
import { failureOf, onEachStore } from './cases.ts';

const RUNS = { seed: 1515, numRuns: process.env.LONG ? 2_000 : 40 };
/** A response, or the fields that were refused. */
type Json = Record<string, never> & {
  code?: string;
  details?: { debug?: { reason?: string; fieldViolations?: { field: string }[] } }[];
};

onEachStore('%s', (kind) => {
  const database = freshDatabase(kind, inject('mongoUri'));
  let server: TestServer;
  let clients: Clients;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder);
    clients = server.clients('grpc');
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });
  const call = async (path: string, body: object): Promise<Json> => {
    const response = await fetch(`http://127.0.0.1:${server.running.ports.http}/apikey.v1.${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${server.adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return (await response.json()) as Json;
  };
  /** True when it was refused as it must be: with its fields named. */
  const refused = (answer: Json): boolean => {
    if (answer.code === undefined) return false;
    expect(answer.code).toBe('invalid_argument');
    const named = answer.details?.flatMap(({ debug }) => debug?.fieldViolations ?? []) ?? [];
    expect(named.length).toBeGreaterThan(0);
    for (const { field } of named) expect(field).not.toBe('');
    return true;
  };
  /** Checks that GetKey and ListKeys over JSON, and GetKey over gRPC, return the fields that were sent. */
  const expectSame = async (id: string, sent: Fields) => {
    const { key } = (await call('ApiKeyAdmin/GetKey', { id })) as unknown as { key: KeyJson };
    expectFields(key, sent);
    const overGrpc = await clients.admin.getKey({ id });
    expect([overGrpc.key?.name, overGrpc.key?.ownerId]).toEqual([sent.name, sent.ownerId]);
    const listed = await clients.admin.listKeys({ ownerId: sent.ownerId, pageSize: 1000 });
    expect(listed.keys.map((each) => each.id)).toContain(id);
  };

  it('CreateKey, ValidateKey and UpdateKey return a text unchanged, or refuse its field by name', async () => {
    let [made, not] = [0, 0];
    await fc.assert(
      fc.asyncProperty(fields, fields, async (first, second) => {
        const answer = await call('ApiKeyAdmin/CreateKey', toJson(first));
        if (refused(answer)) {
          not++;
          return;
        }
        made++;
        const { key, secret } = answer as unknown as { key: { id: string }; secret: string };
        await expectSame(key.id, first);
        for (const told of [
          (await call('ApiKeyAuth/ValidateKey', { key: secret })).ownerId,
          (await clients.auth.validateKey({ key: secret })).ownerId,
        ])
          expect(told).toBe(first.ownerId);
        const { expireTime, keyType, scopes, ...change } = toJson(second) as Record<string, unknown>;
        const updateMask = Object.keys(change).join(',');
        if (refused(await call('ApiKeyAdmin/UpdateKey', { key: { id: key.id, ...change }, updateMask }))) {
          await expectSame(key.id, first);
          return;
        }
        const { expireTime: _unchanged, ...changed } = second;
        await expectSame(key.id, { ...first, ...changed });
      }),
      RUNS,
    );
    // The canary: both kinds were tried.
    expect(made).toBeGreaterThan(RUNS.numRuns / 10);
    expect(not).toBeGreaterThan(RUNS.numRuns / 10);
  });

  it('ImportKeys returns a text unchanged, or refuses its field by name', async () => {
    await fc.assert(
      fc.asyncProperty(fields, async (sent) => {
        const imported = { ...toJson(sent), keyHash: hashSecret(mintSecret()) };
        const answer = await call('ApiKeyAdmin/ImportKeys', { keys: [imported] });
        if (refused(answer)) return;
        const [result] = (answer as unknown as { results: { id: string }[] }).results;
        await expectSame(result?.id ?? '', sent);
      }),
      RUNS,
    );
  });

  it('gRPC accepts and refuses the same texts as JSON', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyText.filter((text) => text.isWellFormed()),
        async (text) => {
          const body = { name: text, ownerId: 'o', scopes: ['a'] };
          const overJson = await call('ApiKeyAdmin/CreateKey', { ...body, keyType: 1 });
          const creating = clients.admin.createKey({ ...body, keyType: 1 as never });
          if (refused(overJson)) expect(await failureOf(creating)).toMatchObject({ fields: ['name'] });
          else expect((await creating).key?.name).toBe(text);
        },
      ),
      RUNS,
    );
  });
});

describe('the command line', () => {
  it('prints any text as one line without a control character, and any JSON as the same JSON', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(plain(text)).not.toMatch(/[\p{Cc}\p{Cs}\u2028\u202a-\u202e]/u);
        expect(JSON.parse(printable(JSON.stringify({ text }, null, 2)))).toEqual({ text });
      }),
      { ...RUNS, numRuns: 2_000 },
    );
  });
});

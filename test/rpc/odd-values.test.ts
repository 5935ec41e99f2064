// If this fails, one small request keeps all other callers waiting, or a value is taken for another one.
import { gzipSync } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  ImportedKeySchema,
  ImportKeysRequestSchema,
  VerifyAuditRequestSchema,
} from '../../gen/apikey/v1/admin_pb.ts';
import { BatchValidateKeysRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { isoTime } from '../../src/cli/values.ts';
import { hashSecret, mintSecret } from '../../src/keys/secret.ts';
import { MAX_FIELDS, MAX_MESSAGES, refuseTooMany } from '../../src/messages/message-size.ts';
import { frame, RawGrpc } from '../support/raw.ts';
import { type Clients, freshDatabase, startServer, type TestServer, TRANSPORTS } from '../support/server.ts';
import { at, decide, failureOf, makeKey } from './cases.ts';

const BATCH = '/apikey.v1.ApiKeyAuth/BatchValidateKeys';

describe('odd values', () => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let clients: Clients;
  let authorization: string;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder);
    clients = server.clients('grpc');
    authorization = `Bearer ${server.adminKey}`;
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });

  /** Makes a JSON call, and returns its refusal. */
  const json = async (path: string, body: string) => {
    const response = await fetch(`http://127.0.0.1:${server.running.ports.http}/apikey.v1.${path}`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body,
    });
    const answer = (await response.json()) as {
      code?: string;
      message?: string;
      details?: { debug?: { fieldViolations?: { field: string }[] } }[];
    };
    const fields = answer.details?.flatMap(({ debug }) => debug?.fieldViolations ?? []) ?? [];
    return { status: response.status, code: answer.code, fields: fields.map(({ field }) => field) };
  };

  it('524 000 empty items in a kilobyte of gzip are refused before one of them is decoded', async () => {
    const bytes = Buffer.alloc(1_048_000);
    for (let i = 0; i < bytes.length; i += 2) bytes[i] = 0x0a;
    const message = frame(gzipSync(bytes));
    message[0] = 1;
    const raw = new RawGrpc(server.running.ports.grpc);
    expect(await raw.call(BATCH, message, { authorization, 'grpc-encoding': 'gzip' })).toMatchObject({
      grpcStatus: 3,
    });
    raw.close();
    expect(() => refuseTooMany(BatchValidateKeysRequestSchema, bytes)).toThrow(
      `requests: at most ${MAX_MESSAGES}`,
    );
    const web = await json('ApiKeyAuth/BatchValidateKeys', `{"requests":[${'{},'.repeat(340_000)}{}]}`);
    expect(web).toEqual({ status: 400, code: 'invalid_argument', fields: ['requests'] });
  });

  it('too many items are refused over Connect in binary, in frames and by gzip', async () => {
    const requests = Array.from({ length: MAX_MESSAGES + 1 }, () => ({}));
    for (const transport of TRANSPORTS)
      expect(await failureOf(server.clients(transport).auth.batchValidateKeys({ requests }))).toMatchObject({
        code: 'InvalidArgument',
        fields: ['requests'],
        text: `requests: at most ${MAX_MESSAGES}`,
      });
  });

  it('a field mask of 350 000 paths is refused with its reason, not as an internal error', async () => {
    const { id } = await makeKey(clients);
    for (const transport of ['grpc', 'connect-json', 'connect-binary'] as const) {
      const paths = Array.from({ length: transport === 'connect-json' ? 100_000 : 170_000 }, () => 'name');
      const call = server
        .clients(transport)
        .admin.updateKey({ key: { id, name: 'x' }, updateMask: { paths } });
      expect(await failureOf(call)).toMatchObject({ code: 'InvalidArgument', fields: ['update_mask'] });
    }
  });

  it('counts items in nested messages, and names their field', () => {
    const limits = Array.from({ length: MAX_MESSAGES + 1 }, () => ({}));
    const bytes = toBinary(
      ImportKeysRequestSchema,
      create(ImportKeysRequestSchema, { keys: [{}, { rateLimits: limits }] }),
    );
    expect(() => refuseTooMany(ImportKeysRequestSchema, bytes)).toThrow('keys[1].rate_limits');
    const most = create(VerifyAuditRequestSchema, { expectedHeads: limits.slice(1) });
    refuseTooMany(VerifyAuditRequestSchema, toBinary(VerifyAuditRequestSchema, most));
    const unknown = Buffer.alloc(3 * (MAX_FIELDS + 1), Buffer.from([0xf8, 0x06, 0x01]));
    expect(() => refuseTooMany(VerifyAuditRequestSchema, unknown)).toThrow(`more than ${MAX_FIELDS} fields`);
    // Malformed messages are left to the decoder.
    for (const broken of [
      [0x0a],
      [0x0a, 5, 0],
      [0x0b],
      [0xff, 0xff],
      [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ])
      refuseTooMany(VerifyAuditRequestSchema, Buffer.from(broken));
    expect(() => fromBinary(VerifyAuditRequestSchema, Buffer.from([0x0a, 5, 0]))).toThrow();
  });

  it.each([
    ['ApiKeyAdmin/CreateKey', '{"ttl":"1s1s"}', 'ttl'],
    ['ApiKeyAdmin/CreateKey', '{"ttl":"01s"}', 'ttl'],
    ['ApiKeyAdmin/CreateKey', '{"expireTime":"2027-02-30T00:00:00Z"}', 'expire_time'],
    ['ApiKeyAdmin/CreateKey', '{"expireTime":"2027-02-20T24:00:00Z"}', 'expire_time'],
    ['ApiKeyAdmin/CreateKey', '{"rateLimits":[{"window":"1s1s"}]}', 'rate_limits[0].window'],
    ['ApiKeyAdmin/CreateKey', '{"rateLimits":[{"limit":"0x10"}]}', 'rate_limits[0].limit'],
    ['ApiKeyAdmin/CreateKey', '{"rateLimits":[{"limit":"99999999999999999999"}]}', 'rate_limits[0].limit'],
    ['ApiKeyAdmin/CreateKey', `{"rateLimits":[{"limit":"${'9'.repeat(999)}"}]}`, 'rate_limits[0].limit'],
    ['ApiKeyAdmin/CreateKey', '{"rateLimits":[{"limit":-1}]}', 'rate_limits[0].limit'],
    ['ApiKeyAdmin/CreateKey', '{"rotateEvery":"315576000001s"}', 'rotate_every'],
    ['ApiKeyAdmin/CreateKey', '{"expireTime":"0000-01-01T00:00:00Z"}', 'expire_time'],
    ['ApiKeyAdmin/CreateKey', '{"expireTime":"9999-12-31T23:59:59-10:00"}', 'expire_time'],
    ['ApiKeyAdmin/CreateKey', '{"keyType":99}', 'key_type'],
    ['ApiKeyAdmin/UpdateKey', '{"updateMask":"owner_id"}', 'update_mask'],
    ['ApiKeyAdmin/ListKeys', '{"pageSize":99999999999}', 'page_size'],
    ['ApiKeyAdmin/ListKeys', '{"pageSize":"-99999999999"}', 'page_size'],
    ['ApiKeyAdmin/CreateKey', '{"metadata":{"team":5}}', 'metadata[team]'],
    ['ApiKeyAdmin/CreateKey', '{"name":"\\ud800"}', 'name'],
    ['ApiKeyAdmin/CreateKey', '{"metadata":{"a":"\\udc00x"}}', 'metadata[a]'],
    ['ApiKeyAdmin/CreateKey', '{"keyType":"KEY_TYPE_ANY"}', 'key_type'],
    ['ApiKeyAdmin/ListKeys', '{"pageSize":"0x10"}', 'page_size'],
    ['ApiKeyAuth/ValidateKey', '{"cost":"0x10"}', 'cost'],
    ['ApiKeyAuth/ValidateKey', '{"cost":" 1 "}', 'cost'],
    ['ApiKeyAuth/ValidateKey', '{"cost":9007199254740993}', 'cost'],
    ['ApiKeyAuth/ValidateKey', '{"dryRun":"true"}', 'dry_run'],
    ['ApiKeyAuth/ValidateKey', '{"key":["x"]}', 'key'],
    ['ApiKeyAuth/BatchValidateKeys', '{"requests":[{},{"minRevision":"0b11"}]}', 'requests[1].min_revision'],
  ])('JSON: %s %s is refused, and the field is named', async (path, body, field) => {
    expect(await json(path, body)).toMatchObject({ status: 400, code: 'invalid_argument', fields: [field] });
  });

  it('JSON: every form that proto3 JSON allows is accepted', async () => {
    const body = `{"key":"x","cost":"16","minRevision":0,"required_scope":"a","dryRun":false,"clientIp":null}`;
    expect(await json('ApiKeyAuth/ValidateKey', body)).toMatchObject({ status: 200 });
    const key = `{"name":"n","owner_id":"o","keyType":3,"scopes":["a"],"expireTime":"2096-02-29T23:59:59.5+01:00",
      "rateLimits":[{"name":"a","limit":1e2,"window":"1.500s"}],"metadata":{}}`;
    expect(await json('ApiKeyAdmin/CreateKey', key)).toMatchObject({ status: 200 });
  });

  it('the command line refuses 30 February, and accepts 29 February in a leap year', () => {
    for (const text of [
      '2027-02-30T00:00:00Z',
      '2027-02-29T00:00Z',
      '2027-13-01T00:00Z',
      '2027-00-10T00:00Z',
    ])
      expect(() => isoTime(text)).toThrow('a time like');
    expect(isoTime('2028-02-29T00:00:00+01:00').toISOString()).toBe('2028-02-28T23:00:00.000Z');
  });

  it('a key that expired in 1960 is not imported, and one that expired in 1971 is reported as EXPIRED', async () => {
    const secret = mintSecret();
    const key = {
      name: 'n',
      ownerId: 'o',
      keyType: KeyType.SYSTEM,
      scopes: ['a'],
      keyHash: hashSecret(secret),
    };
    const imported = (ms: number) =>
      clients.admin.importKeys({ keys: [create(ImportedKeySchema, { ...key, expireTime: at(ms) })] });
    expect(await failureOf(imported(-315_619_200_000))).toMatchObject({ fields: ['keys[0].expire_time'] });
    await imported(31_536_000_000);
    for (const transport of TRANSPORTS)
      expect((await decide(server.clients(transport), secret)).expireTime).toMatchObject({
        seconds: 31_536_000n,
      });
  });
});

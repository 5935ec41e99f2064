// If this fails, a broken or hostile client brings the server down, gets no clear error, or leaves no trace.

import { connect as tcpConnect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { create, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { mintSecret } from '../../src/keys/secret.ts';
import { TestClock } from '../support/clock.ts';
import { frame, RawGrpc } from '../support/raw.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { decide, decisionOf, failureOf, makeKey } from './cases.ts';

const PATH = '/apikey.v1.ApiKeyAuth/ValidateKey';

describe('bad input', () => {
  const database = freshDatabase('sqlite', '');
  const clock = new TestClock(Date.now());
  let server: TestServer;
  let clients: Clients;
  let raw: RawGrpc;
  let credential: { authorization: string };
  let secret: string;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, {}, clock);
    clients = server.clients('grpc');
    raw = new RawGrpc(server.running.ports.grpc);
    credential = { authorization: `Bearer ${server.adminKey}` };
    ({ secret } = await makeKey(clients));
  });
  afterAll(async () => {
    raw.close();
    await server.stop();
    await database.drop();
  });

  const eventCount = async () => Number((await clients.admin.getStats({})).auditEvents);
  const good = () =>
    frame(toBinary(ValidateKeyRequestSchema, create(ValidateKeyRequestSchema, { key: secret })));
  /** The outcome of the one event that an action leaves. */
  const outcomeOf = async (action: () => Promise<unknown>) => {
    const before = await eventCount();
    const result = await action();
    const { events } = await clients.admin.listAuditEvents({ method: PATH.slice(1), pageSize: 5 });
    // One by the action, and the GetStats and ListAuditEvents of this very look.
    expect((await eventCount()) - before).toBe(3);
    return { result, outcome: events.find(({ method }) => method === PATH.slice(1))?.outcome };
  };
  const json = (body: string, headers: Record<string, string> = {}, path = PATH) =>
    fetch(`http://127.0.0.1:${server.running.ports.http}${path}`, {
      method: 'POST',
      headers: { ...credential, 'content-type': 'application/json', ...headers },
      body,
    });

  it.each([
    ['a message cut off', () => frame(Buffer.from([0x0a, 0x1f, 0x61]))],
    ['no protobuf at all', () => frame(Buffer.from('nonsense'))],
    ['a string that is not UTF-8', () => frame(Buffer.from([0x0a, 2, 0xc3, 0x28]))],
    ['a field number nobody knows', () => Buffer.concat([frame(Buffer.from([0xf8, 0x06, 1]))])],
    ['a message over 1 MiB', () => frame(Buffer.alloc((1 << 20) + 1, 0))],
  ])('gRPC: %s is refused and recorded, and the next call works', async (what, bytes) => {
    const { result, outcome } = await outcomeOf(() => raw.call(PATH, bytes(), credential));
    const tooLarge = what.includes('MiB');
    expect(result).toMatchObject({ httpStatus: 200, grpcStatus: tooLarge ? 8 : 3 });
    expect(outcome).toBe(tooLarge ? 'RESOURCE_EXHAUSTED' : 'INVALID_ARGUMENT');
    expect((await raw.call(PATH, good(), credential)).grpcStatus).toBe(0);
  });

  it('more violations than fit into an error: the first are named, and all are counted', async () => {
    const scopes = Array.from({ length: 20_000 }, () => 'tra*');
    const failure = await failureOf(makeKey(clients, { scopes }));
    expect(failure).toMatchObject({ code: 'InvalidArgument', reason: 'INVALID_REQUEST' });
    expect(failure.fields).toHaveLength(32);
    expect(failure.text).toMatch(/and 19999 more/);
  });

  it('gRPC: a frame shorter than its length prefix is refused and recorded', async () => {
    const { result, outcome } = await outcomeOf(() => raw.call(PATH, good().subarray(0, 20), credential));
    expect(result).toMatchObject({ grpcStatus: 3 });
    expect(outcome).toBe('INVALID_ARGUMENT');
  });

  it('gRPC: two messages of a unary call are refused and recorded', async () => {
    const twice = Buffer.concat([good(), good()]);
    const { result, outcome } = await outcomeOf(() => raw.call(PATH, twice, credential));
    expect(result).toMatchObject({ grpcStatus: 3 });
    expect(outcome).toBe('INVALID_ARGUMENT');
  });

  it('gRPC: no message at all is refused and recorded', async () => {
    const { result, outcome } = await outcomeOf(() => raw.call(PATH, Buffer.alloc(0), credential));
    expect(result).toMatchObject({ grpcStatus: 3 });
    expect(outcome).toBe('INVALID_ARGUMENT');
  });

  it('gRPC: a message beyond what the transport reads is refused and recorded', async () => {
    const { result, outcome } = await outcomeOf(() =>
      raw.call(PATH, frame(Buffer.alloc(5 << 20)), credential),
    );
    expect(result).toMatchObject({ grpcStatus: 8 });
    expect(outcome).toBe('RESOURCE_EXHAUSTED');
  });

  it('gRPC: a client that disconnects within a message leaves an event', async () => {
    const before = await eventCount();
    await new RawGrpc(server.running.ports.grpc).abandon(PATH, good().subarray(0, 20), credential);
    // The server sees the reset a moment later; the next look finds the event.
    let grown = 0;
    for (let looks = 0; grown <= looks; looks++) grown = (await eventCount()) - before;
    const { events } = await clients.admin.listAuditEvents({ outcome: 'CANCELLED', pageSize: 1 });
    expect(events[0]).toMatchObject({ method: PATH.slice(1), reason: 'REQUEST_NOT_RECEIVED' });
  });

  it('gRPC: a message that is incomplete at its deadline is ended and recorded', async () => {
    const { result, outcome } = await outcomeOf(() =>
      raw.unfinished(PATH, good().subarray(0, 20), { ...credential, 'grpc-timeout': '50m' }),
    );
    expect(result).toBe(4);
    expect(outcome).toBe('CANCELLED');
  });

  it('gRPC: an invalid deadline is refused and recorded', async () => {
    const { result, outcome } = await outcomeOf(() =>
      raw.call(PATH, good(), { ...credential, 'grpc-timeout': 'soon' }),
    );
    expect(result).toMatchObject({ grpcStatus: 3 });
    expect(outcome).toBe('INVALID_ARGUMENT');
  });

  it('gRPC: an unknown method is UNIMPLEMENTED, also on an unknown service', async () => {
    for (const path of ['/apikey.v1.ApiKeyAuth/Nothing', '/nothing.v1.Nothing/Nothing'])
      expect(await raw.call(path, good(), credential)).toMatchObject({ httpStatus: 200, grpcStatus: 12 });
  });

  it('gRPC: reads gzip, and refuses unknown encodings and zip bombs', async () => {
    const packed = (message: Uint8Array) => {
      const bytes = frame(gzipSync(message));
      bytes[0] = 1;
      return bytes;
    };
    const gzip = { ...credential, 'grpc-encoding': 'gzip' };
    expect((await raw.call(PATH, packed(good().subarray(5)), gzip)).grpcStatus).toBe(0);
    expect((await raw.call(PATH, packed(Buffer.alloc(64 << 20)), gzip)).grpcStatus).toBe(8);
    expect((await raw.call(PATH, good(), { ...credential, 'grpc-encoding': 'snappy' })).grpcStatus).toBe(0);
    const unknown = good();
    unknown[0] = 1;
    expect((await raw.call(PATH, unknown, { ...credential, 'grpc-encoding': 'snappy' })).grpcStatus).toBe(12);
  });

  it('a 1 MiB key is refused at once on both mounts', async () => {
    const key = 'k'.repeat(1 << 20);
    expect(await failureOf(decide(clients, key))).toMatchObject({ reason: 'MESSAGE_TOO_LARGE' });
    expect(await failureOf(decide(server.clients('connect-json'), key))).toMatchObject({
      reason: 'MESSAGE_TOO_LARGE',
    });
  });

  it.each([
    ['no JSON', '{"key":', 400, 'invalid_argument'],
    ['a wrong type', '{"key":5}', 400, 'invalid_argument'],
    ['a field that is not there', '{"requiredScop":"x"}', 400, 'invalid_argument'],
    ['an enum word nobody knows', '{"key":"x","cost":"many"}', 400, 'invalid_argument'],
  ])('JSON: %s is refused and recorded', async (_what, body, status, code) => {
    const { result, outcome } = await outcomeOf(() => json(body));
    const response = result as Response;
    const answer = (await response.json()) as { code: string; details: { debug: { reason?: string } }[] };
    expect({ status: response.status, code: answer.code }).toEqual({ status, code });
    expect(answer.details[0]?.debug.reason).toBe('INVALID_REQUEST');
    expect(outcome).toBe('INVALID_ARGUMENT');
  });

  it('JSON: names an unknown field, and never quotes a value', async () => {
    const answer = await (await json('{"requiredScop":"x"}')).text();
    expect(answer).toContain('requiredScop');
    const leaked = await (await json(`{"key":["${secret}"]}`)).text();
    expect(leaked).not.toContain(secret);
  });

  it('wrong content types and HTTP methods are refused and recorded', async () => {
    const text = await outcomeOf(() => json('{}', { 'content-type': 'text/plain' }));
    expect((text.result as Response).status).toBe(415);
    expect(text.outcome).toBe('INVALID_ARGUMENT');
    const url = `http://127.0.0.1:${server.running.ports.http}${PATH}`;
    const got = await outcomeOf(() => fetch(url, { headers: credential }));
    expect((got.result as Response).status).toBe(405);
    expect((await json('{}', {}, '/apikey.v1.ApiKeyAuth/Nothing')).status).toBe(404);
  });

  it('JSON: a client that disconnects within a message leaves an event', async () => {
    const before = await eventCount();
    await new Promise<void>((resolve) => {
      const { authorization } = credential;
      const head = `POST ${PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"key"`;
      const socket = tcpConnect(server.running.ports.http, '127.0.0.1', () =>
        socket.write(head, () => socket.destroy()),
      );
      socket.on('close', () => resolve());
    });
    let grown = 0;
    for (let looks = 0; grown <= looks; looks++) grown = (await eventCount()) - before;
    const { events } = await clients.admin.listAuditEvents({ method: PATH.slice(1), pageSize: 1 });
    expect(['INVALID_ARGUMENT', 'CANCELLED']).toContain(events[0]?.outcome);
    expect(await decisionOf(clients, secret)).toBe('VALID');
  });

  it('unknown enum numbers are refused with their field', async () => {
    const call = clients.admin.revokeKey({ id: 'uid-apikey-0000000000000000', reason: 77 as never });
    expect(await failureOf(call)).toMatchObject({ code: 'InvalidArgument', fields: ['reason'] });
  });

  it('a connection that is not HTTP, or silent, does not affect others', async () => {
    for (const port of [server.running.ports.http, server.running.ports.grpc]) {
      await new Promise<void>((resolve) => {
        const socket = tcpConnect(port, '127.0.0.1', () => socket.end('\0\0\0garbage\r\n\r\n'));
        socket.on('error', () => {});
        socket.on('close', () => resolve());
        socket.resume();
      });
    }
    expect(await decisionOf(clients, secret)).toBe('VALID');
  });

  it('a peer with wrong credentials is locked out of look-ups, but not other addresses', async () => {
    const guess = mintSecret();
    const wrong = () => failureOf(server.clients('grpc', guess).admin.getStats({}));
    for (let i = 0; i < 5; i++)
      expect(await wrong()).toMatchObject({ code: 'Unauthenticated', reason: 'CREDENTIAL_INVALID' });
    // And one of the share that an address keeps from which a good credential came lately.
    for (let i = 0; i < 11; i++) expect(await wrong()).toMatchObject({ code: 'Unauthenticated' });
    expect(await wrong()).toMatchObject({ code: 'ResourceExhausted', reason: 'PEER_LOCKED_OUT' });
    expect(await decisionOf(clients, secret)).toBe('VALID');
    expect(await failureOf(server.clients('grpc', '').admin.getStats({}))).toMatchObject({
      reason: 'CREDENTIAL_MISSING',
    });
    const own = server.clients('grpc', '').auth.revokeOwnKey({ key: guess, reason: 1 });
    expect(await failureOf(own)).toMatchObject({ reason: 'PEER_LOCKED_OUT' });
    await clients.admin.clearLockout({ clientIp: '127.0.0.1' });
  });
});

describe('ALLOW_ANONYMOUS_VALIDATE', () => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  beforeAll(async () => {
    const settings = { ALLOW_ANONYMOUS_VALIDATE: 'true', ADMIN_BOOTSTRAP_KEY: mintSecret() };
    server = await startServer(database.url, database.folder, settings);
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });

  it.each(['grpc', 'connect-json'] as const)(
    'opens ValidateKey and nothing else, over %s',
    async (transport) => {
      const { secret, id } = await makeKey(server.clients(transport));
      const nobody = server.clients(transport, '');
      expect(await decisionOf(nobody, secret, { requiredScope: 'traces:read' })).toBe('VALID');
      const missing = { code: 'Unauthenticated', reason: 'CREDENTIAL_MISSING' };
      expect(await failureOf(decide(nobody, secret, { clientIp: '1.1.1.1' }))).toMatchObject(missing);
      expect(await failureOf(decide(nobody, secret, { dryRun: true }))).toMatchObject(missing);
      expect(await failureOf(nobody.auth.batchValidateKeys({ requests: [{ key: secret }] }))).toMatchObject(
        missing,
      );
      expect(await failureOf(nobody.admin.getKey({ id }))).toMatchObject(missing);
      const wrong = server.clients(transport, 'audit_v1_wrong');
      expect(await failureOf(decide(wrong, secret))).toMatchObject({ reason: 'CREDENTIAL_INVALID' });
    },
  );
});

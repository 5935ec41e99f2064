// If this fails, a stranger without a credential can keep everybody else from being served.
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2, type OutgoingHttpHeaders } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ListAuditEventsRequestSchema, ListAuditEventsResponseSchema } from '../../gen/apikey/v1/admin_pb.ts';
import {
  RevokeOwnKeyRequestSchema,
  ValidateKeyRequestSchema,
  ValidateKeyResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';
import { LIMITS } from '../../src/rpc/limits.ts';
import { selfSigned } from '../support/certificate.ts';
import { frame } from '../support/raw.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';

const VALIDATE = '/apikey.v1.ApiKeyAuth/ValidateKey';
const REVOKE = '/apikey.v1.ApiKeyAuth/RevokeOwnKey';
const LIST = '/apikey.v1.ApiKeyAdmin/ListAuditEvents';
const GRPC = { 'content-type': 'application/grpc', te: 'trailers' };
const JSON_TYPE = { 'content-type': 'application/json' };
const WRONG = { authorization: 'Bearer sk_live_wrong' };

describe('a stranger, over cleartext', () => stranger(false));
describe('a stranger, over TLS', () => stranger(true));

function stranger(encrypted: boolean): void {
  const database = freshDatabase('sqlite', '');
  const sessions: ClientHttp2Session[] = [];
  let server: TestServer;
  let ca: Buffer | undefined;
  let good: ClientHttp2Session;
  let credential: { authorization: string };
  beforeAll(async () => {
    let settings = {};
    if (encrypted) {
      const { certFile, keyFile, cert } = selfSigned(database.folder);
      ca = cert;
      settings = { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile };
    }
    server = await startServer(database.url, database.folder, settings);
    credential = { authorization: `Bearer ${server.adminKey}` };
    good = session();
  });
  afterAll(async () => {
    for (const each of sessions) each.destroy();
    await server.stop();
    await database.drop();
  });

  const session = () => {
    const url = `${encrypted ? 'https' : 'http'}://127.0.0.1:${server.running.ports.http}`;
    const made = connectHttp2(url, { ca }).on('error', () => {});
    sessions.push(made);
    return made;
  };
  /** What has been sent on a session has been read by the server. */
  const read = (from: ClientHttp2Session) => new Promise((resolve) => from.ping(resolve));

  /** A request; its answer is awaited though the body may never end. */
  const ask = (from: ClientHttp2Session, path: string, headers: OutgoingHttpHeaders, body?: Uint8Array) =>
    new Promise<{ status: number; grpcStatus: number | undefined; body: Buffer }>((resolve, reject) => {
      const stream = from.request({ ':method': 'POST', ':path': path, ...headers });
      let status = 0;
      let grpc: unknown;
      const parts: Buffer[] = [];
      stream.on('response', (answer) => {
        status = Number(answer[':status']);
        grpc ??= answer['grpc-status'];
      });
      stream.on('trailers', (trailers) => {
        grpc ??= trailers['grpc-status'];
      });
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('error', reject);
      stream.on('end', () =>
        resolve({
          status,
          grpcStatus: grpc === undefined ? undefined : Number(grpc),
          body: Buffer.concat(parts),
        }),
      );
      if (body !== undefined) stream.end(body);
    });
  const decision = async () => {
    const message = toBinary(
      ValidateKeyRequestSchema,
      create(ValidateKeyRequestSchema, { key: server.adminKey }),
    );
    const { grpcStatus, body } = await ask(good, VALIDATE, { ...GRPC, ...credential }, frame(message));
    expect(grpcStatus).toBe(0);
    return fromBinary(ValidateKeyResponseSchema, body.subarray(5)).valid;
  };
  const outcomes = async (method: string) => {
    const request = create(ListAuditEventsRequestSchema, { method: method.slice(1), pageSize: 3 });
    const message = frame(toBinary(ListAuditEventsRequestSchema, request));
    const { body } = await ask(good, LIST, { ...GRPC, ...credential }, message);
    return fromBinary(ListAuditEventsResponseSchema, body.subarray(5)).events.map(({ outcome }) => outcome);
  };
  const connectRaw = async (): Promise<Socket> => {
    const port = server.running.ports.http;
    const socket = encrypted
      ? connectTls({ port, host: '127.0.0.1', ca, ALPNProtocols: ['http/1.1'] })
      : connectTcp(port, '127.0.0.1');
    socket.on('error', () => {});
    await once(socket, encrypted ? 'secureConnect' : 'connect');
    return socket;
  };
  const answered = async (socket: Socket, what: RegExp) => {
    let got = '';
    for await (const part of socket) {
      got += part;
      if (what.test(got)) break;
    }
    return got;
  };

  it.each([
    ['JSON', JSON_TYPE],
    ['gRPC', GRPC],
  ])('who begins 4 200 calls of %s and sends no message locks nobody out', async (_what, type) => {
    const connections = Array.from({ length: 42 }, () => session());
    for (const each of connections)
      for (let i = 0; i < LIMITS.streamsPerConnection; i++)
        each.request({ ':method': 'POST', ':path': REVOKE, ...type }).on('error', () => {});
    await Promise.all(connections.map(read));
    expect(await decision()).toBe(true);
    for (const each of connections) each.destroy();
  });

  it('who begins 300 calls of HTTP/1.1 and sends no message locks nobody out', async () => {
    const head = `POST ${REVOKE} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n`;
    const sockets = await Promise.all(
      Array.from({ length: 300 }, async () => {
        const socket = await connectRaw();
        // At once: the server lets go of a connection that says nothing, and the last of these may come late.
        socket.write(head);
        return socket;
      }),
    );
    expect(await decision()).toBe(true);
    // They are not lost either: whoever finishes is answered.
    const last = sockets.at(-1) as Socket;
    last.write('{"key":1}');
    expect(await answered(last, /\r\n\r\n./)).toMatch(/^HTTP\/1.1 400/);
    for (const socket of sockets) socket.destroy();
  });

  it.each([
    ['no credential', {}],
    ['a wrong one', WRONG],
  ])('who has %s is told before the message has come, and it is recorded', async (_what, headers) => {
    expect(await ask(session(), VALIDATE, { ...GRPC, ...headers })).toMatchObject({ grpcStatus: 16 });
    expect((await outcomes(VALIDATE))[0]).toBe('UNAUTHENTICATED');
    expect(await ask(session(), VALIDATE, { ...JSON_TYPE, ...headers })).toMatchObject({ status: 401 });
    const socket = await connectRaw();
    const lines = ['Host: a', 'Content-Type: application/json', 'Content-Length: 1000'];
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
    socket.write(`POST ${VALIDATE} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
    const answer = await answered(socket, /\r\n\r\n./);
    expect(answer).toMatch(/^HTTP\/1.1 401/);
    expect(answer).toMatch(/connection: close/i);
  });

  it('who has no credential has nothing unpacked', async () => {
    const noGzip = Buffer.concat([Buffer.from([1]), frame(Buffer.from('no gzip')).subarray(1)]);
    expect(await ask(session(), VALIDATE, { ...GRPC, 'grpc-encoding': 'gzip' }, noGzip)).toMatchObject({
      grpcStatus: 16,
    });
    const json = { ...JSON_TYPE, 'content-encoding': 'gzip' };
    expect(await ask(session(), VALIDATE, json, Buffer.from('no gzip'))).toMatchObject({ status: 401 });
    const small = gzipSync(
      toBinary(RevokeOwnKeyRequestSchema, create(RevokeOwnKeyRequestSchema, { key: 'k' })),
    );
    const packed = frame(small);
    packed[0] = 1;
    expect(await ask(session(), REVOKE, { ...GRPC, 'grpc-encoding': 'gzip' }, packed)).toMatchObject({
      grpcStatus: 12,
    });
    expect(await ask(session(), REVOKE, json, gzipSync('{"key":"k"}'))).toMatchObject({ status: 501 });
  });

  it('who has no credential may send 4 KiB', async () => {
    const { openMessageBytes } = LIMITS;
    const large = frame(Buffer.alloc(openMessageBytes + 1));
    expect(await ask(session(), REVOKE, GRPC, large)).toMatchObject({ grpcStatus: 8 });
    const json = Buffer.from(JSON.stringify({ key: 'k'.repeat(openMessageBytes + 100) }));
    expect(await ask(session(), REVOKE, JSON_TYPE, json)).toMatchObject({ status: 429 });
    const socket = await connectRaw();
    const head = `Host: a\r\nContent-Type: application/json\r\nContent-Length: ${1 << 20}\r\n\r\n`;
    socket.write(`POST ${REVOKE} HTTP/1.1\r\n${head}`);
    socket.write(json);
    // It is told before the rest of the megabyte.
    expect(await answered(socket, /\r\n\r\n./)).toMatch(/^HTTP\/1.1 429/);
  });

  it('whose :authority is no host is served, and not recorded as one who went away', async () => {
    const headers = { ...JSON_TYPE, ...credential, ':authority': 'a b:c]' };
    const { status } = await ask(session(), VALIDATE, headers, Buffer.from('{"key":"k"}'));
    expect(status).toBe(200);
    expect((await outcomes(VALIDATE))[0]).toBe('DECISION_MALFORMED');
  });
}

// If this fails, a key that may only look at the audit takes the service down for everybody, by calls of VerifyAudit.
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2';
import { create, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VerifyAuditRequestSchema } from '../../gen/apikey/v1/admin_pb.ts';
import { LIMITS } from '../../src/rpc/limits.ts';
import { systemClock } from '../../src/server/serve.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { LEASE, LOCKOUT } from '../store/contract/harness.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { entryWith } from '../support/keys.ts';
import { frame } from '../support/raw.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';

const PATH = '/apikey.v1.ApiKeyAdmin/VerifyAudit';
const EVENTS = process.env.LONG ? 300_000 : 20_000;
const CONNECTIONS = 42;
const CALLS = CONNECTIONS * LIMITS.streamsPerConnection;
/** Of src/audit/verify.ts: all others are refused. */
const MAY_WAIT = 64;

const KINDS: readonly [name: string, headers: OutgoingHttpHeaders, message: Uint8Array][] = [
  [
    'gRPC',
    { 'content-type': 'application/grpc', te: 'trailers' },
    frame(toBinary(VerifyAuditRequestSchema, create(VerifyAuditRequestSchema))),
  ],
  ['JSON', { 'content-type': 'application/json' }, Buffer.from('{}')],
];

describe(`${CALLS} calls of VerifyAudit at once, over ${EVENTS} events`, () => {
  const database = freshDatabase('sqlite', '');
  const sessions: ClientHttp2Session[] = [];
  let server: TestServer;
  let clients: Clients;
  let auditKey: string;
  let secret: string;
  beforeAll(async () => {
    const options = { url: database.url, clock: systemClock, lockout: LOCKOUT, lease: LEASE };
    const store = await openSqliteStore({ ...options, chainKey: undefined, warn: () => {} });
    const batch = Array.from({ length: 2_000 }, () => entryWith({}));
    for (let at = 0; at < EVENTS; at += batch.length)
      await Promise.all(batch.map((entry) => store.audit.record(entry)));
    await store.close();
    server = await startServer(database.url, database.folder);
    clients = server.clients('grpc');
    auditKey = (await makeKey(clients, { scopes: ['apikeys:audit'] })).secret;
    secret = (await makeKey(clients)).secret;
  });
  afterAll(async () => {
    for (const session of sessions) session.destroy();
    await server.stop();
    await database.drop();
  });

  /** Makes them all. @param answered told the status of each */
  const begin = (headers: OutgoingHttpHeaders, message: Uint8Array, answered: (status: string) => void) => {
    const authorization = `Bearer ${auditKey}`;
    for (let n = 0; n < CONNECTIONS; n++) {
      const session = connect(`http://127.0.0.1:${server.running.ports.http}`).on('error', () => {});
      sessions.push(session);
      for (let i = 0; i < LIMITS.streamsPerConnection; i++) {
        const stream = session.request({ ':method': 'POST', ':path': PATH, authorization, ...headers });
        let status = '';
        stream.on('response', (head) => {
          status = String(head['grpc-status'] ?? head[':status']);
        });
        stream.on('trailers', (trailers) => {
          status = String(trailers['grpc-status'] ?? status);
        });
        // A stream that this side ends has none.
        stream.on('end', () => status !== '' && answered(status)).on('error', () => {});
        stream.resume().end(message);
      }
    }
  };

  it.each(process.env.LONG ? KINDS : KINDS.slice(0, 1))(
    '%s: all others are served meanwhile, and afterwards',
    async (_name, headers, message) => {
      const statuses: string[] = [];
      // All but those that may wait are told at once; then all leave.
      begin(headers, message, (status) => {
        if (statuses.push(status) === CALLS - MAY_WAIT)
          for (const session of sessions.splice(0)) session.destroy();
      });
      // Each has an event to write first, so a slow disk may let more than the server takes be under way for a moment.
      let decided = 0;
      while (statuses.length < CALLS - MAY_WAIT)
        await decisionOf(clients, secret).then(
          () => decided++,
          (error: unknown) => expect(ConnectError.from(error).code).toBe(Code.ResourceExhausted),
        );
      expect(decided).toBeGreaterThan(0);
      const refused = statuses.filter((status) => status === '8' || status === '429');
      expect(refused.length).toBeGreaterThan(CALLS / 2);
      const cancelled = { method: 'VerifyAudit', outcome: 'CANCELLED' };
      // Unless the last were told at the very moment.
      const noticed = async () =>
        statuses.length === CALLS || (await clients.admin.listAuditEvents(cancelled)).events.length > 0;
      await expect.poll(noticed, { timeout: HANGS_MS }).toBe(true);
      expect(await decisionOf(clients, secret)).toBe('VALID');
      expect(await clients.admin.verifyAudit({})).toMatchObject({ intact: true });
    },
  );
});

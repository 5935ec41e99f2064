// If this fails, a flood of calls slows every answer down, fills the memory, or leaves no trace in the audit.
import { ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { ApiError } from '../../src/keys/errors.ts';
import type { AuditLog } from '../../src/keys/ports/audit.ts';
import type { Authenticator } from '../../src/rpc/authenticate.ts';
import { CallPipeline } from '../../src/rpc/call-pipeline.ts';
import { newCall } from '../../src/rpc/incoming-call.ts';
import { LIMITS } from '../../src/rpc/limits.ts';
import { TestClock } from '../support/clock.ts';
import { MemoryAudit } from '../support/doubles.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { freshDatabase, startServer, type TestServer, TRANSPORTS } from '../support/server.ts';
import { decide, decisionOf, makeKey } from './cases.ts';

// HTTP/1.1 has a connection a call: there the backlog of the socket is the limit.
const HTTP2 = TRANSPORTS.filter(
  (name) => name === 'grpc' || name === 'connect-binary' || name === 'grpc-on-http',
);

describe.each(HTTP2)('more concurrent calls than the limit, over %s', (transport) => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder);
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });

  it('are refused at once and counted, while the others and later ones are served', async () => {
    const { secret } = await makeKey(server.clients(transport));
    // A connection has a limit of its own, so several are needed.
    const connections = Math.ceil(LIMITS.callsUnderWay / LIMITS.streamsPerConnection) + 8;
    const clients = Array.from({ length: connections }, () => server.clients(transport));
    const total = connections * LIMITS.streamsPerConnection;
    const outcomes = await Promise.allSettled(
      Array.from({ length: total }, (_, i) =>
        decide(clients[i % connections] ?? server.clients(transport), secret),
      ),
    );
    const served = outcomes.filter((outcome) => outcome.status === 'fulfilled');
    const failures = outcomes.flatMap((outcome) =>
      outcome.status === 'rejected' ? [ConnectError.from(outcome.reason)] : [],
    );
    expect(served.length).toBeGreaterThanOrEqual(LIMITS.callsUnderWay);
    for (const failure of failures) {
      expect(failure.findDetails(ErrorInfoSchema)[0]?.reason, failure.message).toBe('SERVER_OVERLOADED');
      expect(failure.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBe(1n);
    }
    expect(served.length + failures.length).toBe(total);
    expect(await decisionOf(server.clients(transport), secret)).toBe('VALID');
    const counted = async () => {
      const { events } = await server.clients(transport).admin.listAuditEvents({ outcome: 'GAP' });
      return events.reduce((sum, event) => sum + Number(event.refusedCalls), 0);
    };
    await vi.waitFor(async () => expect(await counted()).toBe(failures.length), HANGS_MS);
  });
});

const refusalOf = (work: () => void) => {
  try {
    work();
  } catch (error) {
    return ConnectError.from(error);
  }
  return expect.fail('it was not refused');
};

describe('the call server', () => {
  it('starts calls up to the limit, and the next when one has ended', async () => {
    const clock = new TestClock();
    const audit = new MemoryAudit();
    const observer = { finished: () => {}, refused: () => {}, failed: () => {} };
    const callPipeline = new CallPipeline({
      authenticator: {} as Authenticator,
      audit: audit.log,
      clock,
      observer,
      shed: () => {},
    });
    const begin = () => callPipeline.begin(newCall(clock, 'm', '192.0.2.1', undefined), new Map());
    const sessions = Array.from({ length: LIMITS.callsUnderWay }, begin);
    for (const session of sessions) session.takePlace();
    for (let i = 0; i < 3; i++) {
      const refused = refusalOf(() => begin().takePlace());
      expect(refused.findDetails(ErrorInfoSchema)[0]?.reason).toBe('SERVER_OVERLOADED');
    }
    expect(audit.refused).toBe(3);
    expect(audit.entries).toEqual([]);
    await sessions[0]?.refuse(new ApiError('INTERNAL', 'ends it'));
    begin().takePlace();
  });

  it('keeps serving while thousands of calls without a message are recorded as refused', async () => {
    const clock = new TestClock();
    const audit = new MemoryAudit();
    let written = () => {};
    const waits = new Promise<void>((resolve) => (written = resolve));
    const observer = { finished: () => {}, refused: () => {}, failed: () => {} };
    const callPipeline = new CallPipeline({
      authenticator: {} as Authenticator,
      audit: { ...audit.log, record: () => waits } as AuditLog,
      clock,
      observer,
      shed: () => {},
    });
    const begin = () => callPipeline.begin(newCall(clock, 'm', '192.0.2.1', undefined), new Map());
    const refused = Array.from({ length: LIMITS.callsUnderWay }, () =>
      begin().refuse(new ApiError('REQUEST_NOT_RECEIVED', 'the message came too slowly')),
    );
    begin().takePlace();
    written();
    await Promise.all(refused);
  });
});

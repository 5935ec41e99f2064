// If this fails, the log gets a line per call without being asked to, or such lines lack fields or reveal the caller.
import { describe, expect, it } from 'vitest';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { freshDatabase, startServer } from '../support/server.ts';

/** The log lines of calls, in order. */
async function linesWith(settings: Record<string, string>) {
  const database = freshDatabase('sqlite', '');
  const server = await startServer(database.url, database.folder, settings);
  const clients = server.clients('grpc');
  const { secret } = await makeKey(clients);
  await decisionOf(clients, secret, { clientIp: '203.0.113.5' });
  await clients.auth.validateKey({ key: secret, requiredScope: '*' }).catch(() => {});
  await server.stop();
  await database.drop();
  const lines = server.log.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'call');
  return { lines, text: server.log.join(''), secret };
}

describe('the access log', () => {
  it('is off by default', async () => {
    expect((await linesWith({})).lines).toEqual([]);
  });

  it('has a line for each call with its code and time, and nothing about the caller', async () => {
    const { lines, text, secret } = await linesWith({ ACCESS_LOG: 'true' });
    const told = lines.map(({ method, code }) => [method.split('/')[1], code]);
    expect(told).toEqual([
      ['CreateKey', 'OK'],
      ['ValidateKey', 'OK'],
      ['ValidateKey', 'INVALID_ARGUMENT'],
    ]);
    for (const { ms } of lines) expect(ms).toBeGreaterThan(0);
    for (const absent of [secret, '203.0.113.5']) expect(text).not.toContain(absent);
  });
});

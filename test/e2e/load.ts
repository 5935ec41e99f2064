import { Code, ConnectError } from '@connectrpc/connect';
import { expect } from 'vitest';
import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { mintSecret } from '../../src/keys/secret.ts';
import { decide, decisionOf, makeKey, nameOf } from '../rpc/cases.ts';
import type { Clients } from '../support/server.ts';

/** Runs `count` jobs, `lanes` at a time. */
export async function inLanes(
  count: number,
  lanes: number,
  job: (i: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    try {
      for (let i = next++; i < count; i = next++) await job(i);
    } catch (error) {
      // The other lanes end too, so that their calls do not run into the next test.
      next = count;
      throw error;
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

type Call = (i: number) => Promise<string>;

/** Each decision and each error code that is recorded, as a call that brings it about. */
export async function mixedCalls(clients: Clients, as: (key: string) => Clients): Promise<Map<string, Call>> {
  const good = await makeKey(clients, { scopes: ['traces:read'] });
  const narrow = await makeKey(clients, { ipAllowlist: ['192.0.2.1'] });
  const full = await makeKey(clients, { rateLimits: [{ name: 'm', limit: 1n, window: { seconds: 3600n } }] });
  const revoked = await makeKey(clients);
  const disabled = await makeKey(clients);
  const expired = await makeKey(clients);
  const service = as((await makeKey(clients, { scopes: ['apikeys:validate'] })).secret);
  const limited = as(
    (
      await makeKey(clients, {
        scopes: ['apikeys:*'],
        rateLimits: [{ name: 'm', limit: 1n, window: { seconds: 3600n } }],
      })
    ).secret,
  );
  const stranger = as('');
  const rotated = await makeKey(clients);
  const { secret: successor } = await clients.admin.rotateKey({
    id: rotated.id,
    mode: RotationMode.FORCED,
    grace: { seconds: 0n },
  });
  expect(await decisionOf(clients, successor)).toBe('VALID');
  await clients.admin.revokeKey({ id: revoked.id, reason: 1 });
  await clients.admin.updateKey({
    key: { id: disabled.id, disabled: true },
    updateMask: { paths: ['disabled'] },
  });
  await clients.admin.expireKey({ id: expired.id });
  await decide(clients, full.secret);
  await limited.admin.getKey({ id: good.id });
  const taken = { requestId: `taken ${good.id}` };
  await makeKey(clients, taken);
  for (let i = 0; i < 5; i++) await decide(clients, 'x', { clientIp: '192.0.2.66' });
  const ask =
    (key: string, fields = {}): Call =>
    async (i) =>
      `DECISION_${nameOf((await decide(clients, key, { requestId: `${good.id} ${i}`, ...fields })).decision)}`;
  const failing =
    (call: (i: number) => Promise<unknown>): Call =>
    async (i) => {
      try {
        await call(i);
        return 'OK';
      } catch (error) {
        return (Code[ConnectError.from(error).code] ?? '').replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
      }
    };
  return new Map<string, Call>([
    ['DECISION_VALID', ask(good.secret, { requiredScope: 'traces:read', clientIp: '192.0.2.1' })],
    ['DECISION_LOCKED_OUT', ask(good.secret, { clientIp: '192.0.2.66' })],
    ['DECISION_MALFORMED', ask('nonsense')],
    ['DECISION_NOT_FOUND', (i) => ask(mintSecret())(i)],
    ['DECISION_REVOKED', ask(revoked.secret)],
    ['DECISION_DISABLED', ask(disabled.secret)],
    ['DECISION_EXPIRED', ask(expired.secret)],
    ['DECISION_ROTATED', ask(rotated.secret)],
    ['DECISION_IP_NOT_ALLOWED', ask(narrow.secret, { clientIp: '192.0.2.2' })],
    ['DECISION_INSUFFICIENT_SCOPE', ask(good.secret, { requiredScope: 'traces:write' })],
    ['DECISION_RATE_LIMITED', ask(full.secret)],
    ['OK', failing(() => clients.admin.getKey({ id: good.id }))],
    ['INVALID_ARGUMENT', failing(() => decide(clients, 'x', { clientIp: 'nowhere' }))],
    ['UNAUTHENTICATED', failing(() => stranger.admin.getKey({ id: good.id }))],
    ['PERMISSION_DENIED', failing(() => service.admin.getKey({ id: good.id }))],
    ['NOT_FOUND', failing(() => clients.admin.getKey({ id: 'uid-apikey-0000000000000000' }))],
    ['ALREADY_EXISTS', failing(() => makeKey(clients, taken))],
    ['FAILED_PRECONDITION', failing(() => clients.admin.expireKey({ id: revoked.id }))],
    [
      'ABORTED',
      failing(() =>
        clients.admin.updateKey({
          key: { id: good.id, name: 'n', etag: 'old' },
          updateMask: { paths: ['name'] },
        }),
      ),
    ],
    ['RESOURCE_EXHAUSTED', failing(() => limited.admin.getKey({ id: good.id }))],
  ]);
}

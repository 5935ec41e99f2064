// If this fails, a revocation returns while a guard still answers VALID by itself, or waits for guards that cannot.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Decision } from '../../gen/apikey/v1/auth_pb.ts';
import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { decisionOf, failureOf, makeKey } from '../rpc/cases.ts';
import { Place } from '../server/place.ts';
import { HANGS_MS } from '../support/hangs.ts';
import type { Clients } from '../support/server.ts';
import { GuardCalls } from './guard-calls.ts';

const local = { localValidation: true };
const LEASE_MS = 1_000;

/** A promise, and whether it is settled yet. */
function watched<T>(promise: Promise<T>) {
  const state = { promise, settled: false };
  const settle = () => {
    state.settled = true;
  };
  promise.then(settle, settle);
  return state;
}

describe('on the embedded store, a change', () => {
  let place: Place;
  let clients: Clients;
  const serve = async (settings: Record<string, string> = {}) => {
    clients = (await place.start(settings)).clients('grpc');
  };
  beforeEach(async () => {
    place = new Place('sqlite');
    await serve();
  });
  afterEach(async () => {
    await place.stop();
    await place.database.drop();
  });

  /** Until the server itself decides so; the change may still wait for guards. */
  const decided = (secret: string, decision: string) =>
    vi.waitFor(async () => expect(await decisionOf(clients, secret)).toBe(decision), HANGS_MS);

  const changes: Record<string, (id: string, secret: string) => Promise<unknown>> = {
    RevokeKey: (id) => clients.admin.revokeKey({ id, reason: 1 }),
    RevokeOwnKey: (_id, key) => clients.auth.revokeOwnKey({ key, reason: 1 }),
    ExpireKey: (id) => clients.admin.expireKey({ id }),
    RotateKey: (id) => clients.admin.rotateKey({ id, mode: RotationMode.FORCED, grace: { seconds: 0n } }),
    'UpdateKey that disables': (id) =>
      clients.admin.updateKey({ key: { id, disabled: true }, updateMask: { paths: ['disabled'] } }),
    'UpdateKey that ends local validation': (id) =>
      clients.admin.updateKey({
        key: { id, localValidation: false },
        updateMask: { paths: ['local_validation'] },
      }),
  };

  it.each(Object.entries(changes))(
    '%s waits until the guard repeats the id of the answer that has it',
    async (_name, change) => {
      const { id, secret } = await makeKey(clients, local);
      const guard = new GuardCalls(clients);
      await guard.sync();
      const held = guard.ask();
      const changing = watched(change(id, secret));
      const answer = await held;
      expect(answer.changes.map(({ keyId }) => keyId)).toContain(id);
      // The answer was sent: that proves nothing.
      expect(await decisionOf(clients, 'audit_v1_0123456789012345678901')).toBe('NOT_FOUND');
      expect(changing.settled).toBe(false);
      guard.lastGrantId = answer.grantId;
      guard.revision = answer.revision;
      void guard.ask().catch(() => {});
      await changing.promise;
    },
  );

  it('waits out the lease of a guard that says nothing, by the monotonic clock', async () => {
    const { id, secret } = await makeKey(clients, local);
    await new GuardCalls(clients).sync();
    const revoking = watched(clients.admin.revokeKey({ id, reason: 1 }));
    await decided(secret, 'REVOKED');
    place.clock.step(86_400_000);
    expect(await decisionOf(clients, secret)).toBe('REVOKED');
    expect(revoking.settled).toBe(false);
    place.clock.advance(LEASE_MS * 1.2 + 20);
    await revoking.promise;
  });

  it('waits for a key that had local validation once, and takes no time for any other', async () => {
    const once = await makeKey(clients, local);
    await clients.admin.updateKey({
      key: { id: once.id, localValidation: false },
      updateMask: { paths: ['local_validation'] },
    });
    const never = await makeKey(clients);
    await new GuardCalls(clients).sync();
    await clients.admin.revokeKey({ id: never.id, reason: 1 });
    const revoking = watched(clients.admin.revokeKey({ id: once.id, reason: 1 }));
    await decided(once.secret, 'REVOKED');
    expect(revoking.settled).toBe(false);
    place.clock.advance(LEASE_MS * 1.2 + 20);
    await revoking.promise;
  });

  it('that is repeated waits like the first one', async () => {
    const { id, secret } = await makeKey(clients, local);
    await new GuardCalls(clients).sync();
    const both = [1, 2].map(() => watched(clients.admin.revokeKey({ id, reason: 1 })));
    await decided(secret, 'REVOKED');
    expect(both.map(({ settled }) => settled)).toEqual([false, false]);
    place.clock.advance(LEASE_MS * 1.2 + 20);
    await Promise.all(both.map(({ promise }) => promise));
  });

  it.each([{}, { GUARD_LEASES: 'false' }])(
    'waits after a start for leases of the process before, with %o',
    async (settings) => {
      const { id, secret } = await makeKey(clients, local);
      const never = await makeKey(clients);
      await new GuardCalls(clients).sync();
      await place.stop();
      await serve(settings);
      await clients.admin.revokeKey({ id: never.id, reason: 1 });
      const revoking = watched(clients.admin.revokeKey({ id, reason: 1 }));
      await decided(secret, 'REVOKED');
      expect(revoking.settled).toBe(false);
      place.clock.advance(LEASE_MS * 1.2 + 20);
      await revoking.promise;
    },
  );

  it('takes no time after a start when no lease was ever lent', async () => {
    const { id } = await makeKey(clients, local);
    await place.stop();
    await serve();
    await clients.admin.revokeKey({ id, reason: 1 });
  });

  it('finds no lease at all with GUARD_LEASES=false', async () => {
    await place.stop();
    await serve({ GUARD_LEASES: 'false' });
    const { id, secret } = await makeKey(clients, local);
    expect(await failureOf(new GuardCalls(clients).ask())).toMatchObject({
      code: 'FailedPrecondition',
      reason: 'LEASES_OFF',
    });
    expect((await new GuardCalls(clients).facts(secret)).facts).toBeUndefined();
    await clients.admin.revokeKey({ id, reason: 1 });
  });

  it('leaves one GAP event of a guard whose lease lapsed, and none of one that gave it back', async () => {
    const lost = new GuardCalls(clients);
    await lost.sync();
    const tidy = new GuardCalls(clients);
    await tidy.sync();
    await tidy.ask({ closing: true });
    place.clock.advance(LEASE_MS * 1.2 + 20);
    const gaps = async () => (await clients.admin.listAuditEvents({ outcome: 'GAP' })).events;
    await vi.waitFor(async () => expect(await gaps()).toHaveLength(1), HANGS_MS);
    expect(await gaps()).toMatchObject([
      { method: 'apikey.v1.ApiKeyAuth/SyncKeys', requestId: lost.guardId, refusedCalls: 0n },
    ]);
  });

  it('a guard that has seen more than the store knows is emptied', async () => {
    await makeKey(clients);
    const guard = new GuardCalls(clients);
    await guard.sync();
    expect(await guard.ask({ revision: guard.revision + 1n })).toMatchObject({ reset: true });
  });

  it('a use of a guard is accepted after a restart, once', async () => {
    const { id } = await makeKey(clients, local);
    const guard = new GuardCalls(clients);
    await guard.sync();
    const now = { seconds: BigInt(Math.floor(place.clock.now() / 1_000)), nanos: 0 };
    const uses = [
      { sequence: 1n, keyId: id, decision: Decision.VALID, count: 3n, firstTime: now, lastTime: now },
    ];
    await guard.ask({ uses });
    await place.stop();
    await serve();
    guard.clients = clients;
    await guard.sync({ uses });
    const { events } = await clients.admin.listAuditEvents({ outcome: 'LOCAL_VALID' });
    expect(events).toMatchObject([{ keyId: id, count: 3n }]);
  });
});

// If this fails, guards decide by facts that are not true any more, their decisions are lost or counted twice, or a
// revocation returns before every guard knows of it.
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Duration, durationMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { expect, it, vi } from 'vitest';
import { Decision, type SyncKeysRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { GuardCalls as Guard } from '../leases/guard-calls.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { at, failureOf, forEveryMount, limit, makeKey } from './cases.ts';

type Request = MessageInitShape<typeof SyncKeysRequestSchema>;

const local = { localValidation: true };
const leaseOf = ({ lease }: { lease?: Duration | undefined }) =>
  lease === undefined ? 0 : durationMs(lease);

forEveryMount((mount) => {
  it('SyncKeys lends a lease, names the changed keys, and confirms an answer only by the next request', async () => {
    const { clients } = mount;
    const guard = new Guard(clients);
    const first = await guard.sync();
    expect(first.reset).toBe(true);
    expect(leaseOf(first)).toBeGreaterThan(0);
    expect(leaseOf(first)).toBeLessThanOrEqual(1_000);
    expect(timestampMs(first.serverTime as never)).toBe(mount.clock.now());
    expect(first.lockedAddressesComplete).toBe(true);
    await makeKey(clients);
    // Where processes share a store, a guard learns of a change with the next poll.
    await vi.waitFor(async () => expect((await guard.sync()).revision).toBeGreaterThan(0n), HANGS_MS);
    const { key, id } = await makeKey(clients, local);
    expect(key.localValidation).toBe(true);
    const seen: string[] = [];
    await vi.waitFor(async () => {
      const next = await guard.sync();
      expect(next.reset).toBe(false);
      for (const { revision, keyId } of next.changes) seen.push(`${revision} ${keyId}`);
      expect(seen).toContain(`${key.revision} ${id}`);
    }, HANGS_MS);
    expect(new Set(seen).size).toBe(seen.length);
    await guard.ask({ closing: true });
  });

  it('ValidateKey gives a guard the facts of keys with local validation, and of no others', async () => {
    const { clients } = mount;
    const guard = new Guard(clients);
    const expireTime = at(mount.clock.now() + 3_600_000);
    const made = await makeKey(clients, {
      ...local,
      scopes: ['traces:*', 'a:b'],
      ipAllowlist: ['10.0.0.0/8'],
      expiry: { case: 'expireTime', value: expireTime },
    });
    const { facts, decision } = await guard.facts(made.secret);
    expect(decision).toBe(Decision.IP_NOT_ALLOWED);
    expect(facts).toMatchObject({
      scopes: ['traces:*', 'a:b'],
      ipAllowlist: ['10.0.0.0/8'],
      expireTime: { seconds: expireTime.seconds },
      expired: false,
      secretSlot: 1,
    });
    expect(facts?.epoch).not.toBe('');
    expect(facts?.revision).toBeGreaterThanOrEqual(made.key.revision);
    expect((await clients.auth.validateKey({ key: made.secret })).facts).toBeUndefined();
    const dry = await clients.auth.validateKey({ key: made.secret, wantFacts: true, dryRun: true });
    expect(dry.facts).toBeUndefined();
    const other = await makeKey(clients);
    expect((await guard.facts(other.secret)).facts).toBeUndefined();
    await clients.admin.updateKey({
      key: { id: made.id, disabled: true },
      updateMask: { paths: ['disabled'] },
    });
    expect((await guard.facts(made.secret)).facts).toBeUndefined();
    await clients.admin.updateKey({
      key: { id: made.id, disabled: false, localValidation: false },
      updateMask: { paths: ['disabled', 'local_validation'] },
    });
    expect((await guard.facts(made.secret)).facts).toBeUndefined();
  });

  it('a previous secret has its end among its facts, and a retired one has no facts', async () => {
    const { clients } = mount;
    const guard = new Guard(clients);
    const made = await makeKey(clients, local);
    await clients.admin.rotateKey({ id: made.id, grace: { seconds: 3_600n } });
    const { facts, previousSecretExpireTime } = await guard.facts(made.secret);
    expect(facts).toMatchObject({ secretSlot: 2, previousSecretExpireTime });
    await clients.admin.rotateKey({ id: made.id, mode: RotationMode.FORCED, grace: { seconds: 0n } });
    const retired = await guard.facts(made.secret);
    expect(retired).toMatchObject({ decision: Decision.ROTATED });
    expect(retired.facts).toBeUndefined();
  });

  it('local validation and limits do not go together, in any request', async () => {
    const { clients } = mount;
    const rateLimits = [limit('m', 5)];
    expect(await failureOf(makeKey(clients, { ...local, rateLimits }))).toMatchObject({
      reason: 'INVALID_REQUEST',
      fields: ['local_validation'],
    });
    const limited = await makeKey(clients, { rateLimits });
    const free = await makeKey(clients, local);
    const update = (id: string, fields: object, ...paths: string[]) =>
      clients.admin.updateKey({ key: { id, ...fields }, updateMask: { paths } });
    expect(await failureOf(update(limited.id, local, 'local_validation'))).toMatchObject({
      fields: ['key.local_validation'],
    });
    expect(await failureOf(update(free.id, { rateLimits }, 'rate_limits'))).toMatchObject({
      fields: ['key.local_validation'],
    });
    const both = { rateLimits, localValidation: false };
    const { key } = await update(free.id, both, 'rate_limits', 'local_validation');
    expect(key).toMatchObject({ localValidation: false, rateLimits: [{ name: 'm' }] });
  });

  it('decisions of a guard become events, once each however often they are sent', async () => {
    const { clients, clock } = mount;
    const guard = new Guard(clients);
    await guard.sync();
    const { id } = await makeKey(clients, local);
    const now = clock.now();
    const use = (sequence: bigint, decision: Decision, count: bigint) => ({
      sequence,
      keyId: id,
      decision,
      requiredScope: 'traces:read',
      clientIp: '10.1.2.3',
      count,
      firstTime: at(now),
      lastTime: at(now),
    });
    const uses = [use(1n, Decision.VALID, 40n), use(2n, Decision.INSUFFICIENT_SCOPE, 2n)];
    await guard.ask({ uses });
    await guard.sync({ uses });
    const { events } = await clients.admin.listAuditEvents({ keyId: id });
    expect(events.filter(({ outcome }) => outcome.startsWith('LOCAL_'))).toHaveLength(2);
    expect(events.find(({ outcome }) => outcome === 'LOCAL_VALID')).toMatchObject({
      method: 'apikey.v1.ApiKeyAuth/SyncKeys',
      count: 40n,
      firstTime: at(now),
      time: at(now),
      requiredScope: 'traces:read',
      clientIp: '10.1.2.3',
      requestId: `${guard.guardId}/1`,
    });
    await vi.waitFor(async () => {
      const { rows } = await clients.admin.getUsage({ keyId: id });
      expect(rows.map(({ decision, count }) => [decision, count])).toEqual([
        [Decision.INSUFFICIENT_SCOPE, 2n],
        [Decision.VALID, 40n],
      ]);
    }, HANGS_MS);
    expect(await clients.admin.verifyAudit({})).toMatchObject({ intact: true });
    await guard.ask({ closing: true });
  });

  it('a use that no lease allows is refused with its field, and nothing is recorded', async () => {
    const { clients, clock } = mount;
    const guard = new Guard(clients);
    await guard.sync();
    const { id } = await makeKey(clients, local);
    const never = await makeKey(clients);
    const now = clock.now();
    const good = {
      sequence: 1n,
      keyId: id,
      decision: Decision.VALID,
      count: 1n,
      firstTime: at(now),
      lastTime: at(now),
    };
    const refused = async (change: object, field: string, more: Request = {}) =>
      expect(await failureOf(guard.ask({ uses: [{ ...good, ...change }], ...more }))).toMatchObject({
        reason: 'INVALID_REQUEST',
        fields: expect.arrayContaining([field]),
      });
    await refused({ sequence: 0n }, 'uses[0].sequence');
    await refused({ keyId: never.id }, 'uses[0].key_id');
    await refused({ keyId: 'x' }, 'uses[0].key_id');
    await refused({ decision: Decision.NOT_FOUND }, 'uses[0].decision');
    await refused({ decision: Decision.REVOKED }, 'uses[0].decision');
    await refused({ count: 0n }, 'uses[0].count');
    await refused({ count: -1n }, 'uses[0].count');
    await refused({ count: 1_000_000_001n }, 'uses[0].count');
    await refused({ clientIp: 'nowhere' }, 'uses[0].client_ip');
    await refused({ requiredScope: '*' }, 'uses[0].required_scope');
    await refused({ firstTime: at(now + 1), lastTime: at(now) }, 'uses[0].first_time');
    await refused({ firstTime: at(now - 60_000), lastTime: at(now - 60_000) }, 'uses[0].first_time');
    await refused({ firstTime: at(now + 60_000), lastTime: at(now + 60_000) }, 'uses[0].last_time');
    await refused(
      { firstTime: at(now - 3 * 86_400_000), lastTime: at(now - 3 * 86_400_000) },
      'uses[0].last_time',
    );
    await refused({}, 'last_grant_id', { lastGrantId: '' });
    await refused({}, 'last_grant_id', { lastGrantId: guard.lastGrantId.replace(/^./, 'z') });
    const stranger = new Guard(clients);
    const stolen = stranger.ask({ uses: [good], lastGrantId: guard.lastGrantId });
    expect(await failureOf(stolen)).toMatchObject({ fields: ['last_grant_id'] });
    expect(await failureOf(guard.ask({ uses: [good, good] }))).toMatchObject({
      fields: ['uses[1].sequence'],
    });
    expect(await failureOf(guard.ask({ uses: Array(1_001).fill(good) }))).toMatchObject({ fields: ['uses'] });
    expect(await failureOf(guard.ask({ guardId: 'short' }))).toMatchObject({ fields: ['guard_id'] });
    expect(await failureOf(guard.ask({ revision: -1n }))).toMatchObject({ fields: ['revision'] });
    const { events } = await clients.admin.listAuditEvents({ keyId: id });
    expect(events.some(({ outcome }) => outcome.startsWith('LOCAL_'))).toBe(false);
    await guard.ask({ closing: true });
  });

  it('SyncKeys needs a calling key with apikeys:validate', async () => {
    const { clients, clientsFor } = mount;
    expect(await failureOf(new Guard(clientsFor('')).ask())).toMatchObject({ code: 'Unauthenticated' });
    const { secret } = await makeKey(clients);
    expect(await failureOf(new Guard(clientsFor(secret)).ask())).toMatchObject({ reason: 'SCOPE_MISSING' });
  });

  it('an epoch of another store empties the guard', async () => {
    const guard = new Guard(mount.clients);
    await guard.sync();
    await makeKey(mount.clients);
    expect(await guard.ask({ epoch: 'other' })).toMatchObject({ reset: true });
    await guard.ask({ closing: true });
  });

  it('the addresses that are locked out are named', async () => {
    const { clients } = mount;
    const clientIp = mount.freshIp();
    for (let i = 0; i < 6; i++)
      await clients.auth.validateKey({ key: `audit_v1_${'z'.repeat(22)}`, clientIp });
    const guard = new Guard(clients);
    await vi.waitFor(async () => {
      // The list is read again at most every 250 ms of the server's clock.
      mount.clock.advance(250);
      const { lockedAddresses, lockedAddressesComplete } = await guard.sync();
      expect([lockedAddresses, lockedAddressesComplete]).toEqual([expect.arrayContaining([clientIp]), true]);
    }, HANGS_MS);
    await guard.ask({ closing: true });
  });
});

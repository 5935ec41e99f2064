// If this fails, a client gets another decision than the documents promise, on one of the stores or mounts.
import { expect, it } from 'vitest';
import { KeyStatus, KeyType, RevokeReason, SecretSlot } from '../../gen/apikey/v1/key_pb.ts';
import { mintSecret } from '../../src/keys/secret.ts';
import { at, decide, decisionOf, failureOf, forBothHttp2Servers, limit, makeKey, nameOf } from './cases.ts';

forBothHttp2Servers((mount) => {
  const { clock, clientsFor, freshIp } = mount;

  it('ValidateKey answers VALID with all fields about the key', async () => {
    const { clients } = mount;
    const { secret, id } = await makeKey(clients, {
      scopes: ['traces:*'],
      rateLimits: [limit('m', 5)],
      keyType: KeyType.USER,
    });
    const answer = await decide(clients, secret, {
      requiredScope: 'traces:read',
      clientIp: '1.2.3.4',
      cost: 2n,
    });
    expect(answer).toMatchObject({
      valid: true,
      keyId: id,
      keyType: KeyType.USER,
      ownerId: 'owner',
      matchedScope: 'traces:*',
      secretSlot: SecretSlot.CURRENT,
      unlimited: false,
      reasons: [],
      rateLimits: [{ name: 'm', bucket: id, limit: 5n, remaining: 3n, exceeded: false }],
    });
    expect(answer.revision).toBeGreaterThan(0n);
    expect((await decide(clients, (await makeKey(clients)).secret)).unlimited).toBe(true);
  });

  it('each call leaves one event, whatever its outcome', async () => {
    const { clients } = mount;
    const { secret, id } = await makeKey(clients);
    const count = async () => Number((await clients.admin.getStats({})).auditEvents);
    const before = await count();
    await decide(clients, secret, { userAgent: 'u'.repeat(600) });
    await failureOf(decide(clients, secret, { clientIp: 'nowhere' }));
    await failureOf(decide(clientsFor(''), secret));
    // Those three, and the GetStats before.
    expect((await count()) - before).toBe(4);
    const { events } = await clients.admin.listAuditEvents({ keyId: id, outcome: 'DECISION_VALID' });
    expect(events[0]?.userAgent).toBe('u'.repeat(512));
  });

  it('ValidateKey denies for each reason, in order, in an OK response', async () => {
    const { clients } = mount;
    const { secret, id } = await makeKey(clients, {
      ipAllowlist: ['10.0.0.0/8'],
      rateLimits: [limit('m', 1)],
      expiry: { case: 'expireTime', value: at(clock.now() + 60_000) },
    });
    const wrong = { requiredScope: 'x', clientIp: freshIp(), cost: 2n };
    const good = { requiredScope: 'traces:read', clientIp: '10.1.1.1' };
    expect(await decisionOf(clients, secret, wrong)).toBe('IP_NOT_ALLOWED');
    expect(await decisionOf(clients, secret, { ...good, clientIp: '' })).toBe('IP_NOT_ALLOWED');
    expect(await decisionOf(clients, secret, { ...wrong, clientIp: '::ffff:10.9.9.9' })).toBe(
      'INSUFFICIENT_SCOPE',
    );
    const limited = await decide(clients, secret, { ...good, cost: 2n });
    expect(nameOf(limited.decision)).toBe('RATE_LIMITED');
    expect(limited.retryAfter).toBeUndefined();
    expect(await decisionOf(clients, secret, good)).toBe('VALID');
    const later = await decide(clients, secret, good);
    expect(nameOf(later.decision)).toBe('RATE_LIMITED');
    expect(Number(later.retryAfter?.seconds)).toBeGreaterThan(590);
    clock.advance(59_999 - 0);
    expect(await decisionOf(clients, secret, { ...good })).toBe('RATE_LIMITED');
    clock.advance(1);
    expect(await decisionOf(clients, secret, good)).toBe('EXPIRED');
    await clients.admin.updateKey({ key: { id, disabled: true }, updateMask: { paths: ['disabled'] } });
    expect(await decisionOf(clients, secret, wrong)).toBe('DISABLED');
    const all = await decide(clients, secret, { ...wrong, dryRun: true });
    expect(all.reasons.map(nameOf)).toEqual([
      'DISABLED',
      'EXPIRED',
      'IP_NOT_ALLOWED',
      'INSUFFICIENT_SCOPE',
      'RATE_LIMITED',
    ]);
    await clients.admin.revokeKey({ id, reason: RevokeReason.KEY_COMPROMISE });
    expect(await decisionOf(clients, secret, wrong)).toBe('REVOKED');
    expect(await decisionOf(clients, mintSecret())).toBe('NOT_FOUND');
    expect(await decisionOf(clients, 'x'.repeat(500_000))).toBe('MALFORMED');
    const { events } = await clients.admin.listAuditEvents({ keyId: id, pageSize: 1 });
    expect(events[0]).toMatchObject({
      outcome: 'DECISION_REVOKED',
      clientIp: wrong.clientIp,
      cost: 2n,
      secretSlot: SecretSlot.CURRENT,
    });
  });

  it('a dry run and a denial consume nothing', async () => {
    const { clients } = mount;
    const { secret } = await makeKey(clients, { rateLimits: [limit('m', 3)] });
    await decide(clients, secret, { dryRun: true, cost: 3n });
    await decide(clients, secret, { requiredScope: 'nope', cost: 3n });
    await decide(clients, secret, { cost: 9n });
    expect((await decide(clients, secret, { cost: 3n })).rateLimits[0]).toMatchObject({
      remaining: 0n,
      exceeded: false,
    });
  });

  it('the fifth failure locks an address out, and ClearLockout ends that', async () => {
    const { clients } = mount;
    const clientIp = freshIp();
    const { secret } = await makeKey(clients);
    for (const bad of ['x', mintSecret(), 'y']) await decide(clients, bad, { clientIp });
    await decide(clients, 'z', { clientIp, dryRun: true });
    await decide(clients, secret, { clientIp, requiredScope: 'nope' });
    expect(await decisionOf(clients, secret, { clientIp })).toBe('VALID');
    expect(await decisionOf(clients, 'x', { clientIp })).toBe('MALFORMED');
    expect(await decisionOf(clients, mintSecret(), { clientIp })).toBe('NOT_FOUND');
    const locked = await decide(clients, secret, { clientIp });
    expect(nameOf(locked.decision)).toBe('LOCKED_OUT');
    expect(locked.keyId).toBe('');
    expect(Number(locked.retryAfter?.seconds)).toBeGreaterThan(890);
    expect(await decisionOf(clients, secret)).toBe('VALID');
    const dry = await decide(clients, 'x', { clientIp, dryRun: true });
    expect(dry.reasons.map(nameOf)).toEqual(['LOCKED_OUT', 'MALFORMED']);
    const { lockouts } = await clients.admin.listLockouts({ pageSize: 1000 });
    expect(lockouts.map((l) => l.clientIp)).toContain(clientIp);
    await clients.admin.clearLockout({ clientIp });
    expect(await decisionOf(clients, secret, { clientIp })).toBe('VALID');
    expect(await failureOf(clients.admin.clearLockout({ clientIp }))).toMatchObject({
      code: 'NotFound',
      reason: 'LOCKOUT_NOT_FOUND',
    });
  });

  it('a batch is decided in order, and not at all when one item is invalid', async () => {
    const { clients } = mount;
    const { secret, id } = await makeKey(clients, { rateLimits: [limit('m', 2)] });
    const invalid = { requests: [{ key: secret }, { key: secret, clientIp: 'nowhere' }] };
    expect(await failureOf(clients.auth.batchValidateKeys(invalid))).toMatchObject({
      code: 'InvalidArgument',
      fields: ['requests[1].client_ip'],
    });
    const requests = [
      { key: secret },
      { key: 'x' },
      { key: secret, requiredScope: 'no' },
      { key: secret },
      { key: secret },
    ];
    const { responses } = await clients.auth.batchValidateKeys({ requests });
    expect(responses.map(({ decision }) => nameOf(decision))).toEqual([
      'VALID',
      'MALFORMED',
      'INSUFFICIENT_SCOPE',
      'VALID',
      'RATE_LIMITED',
    ]);
    const { events } = await clients.admin.listAuditEvents({
      keyId: id,
      method: 'apikey.v1.ApiKeyAuth/BatchValidateKeys',
    });
    expect(events).toHaveLength(4);
    for (const size of [0, 101]) {
      const batch = { requests: Array.from({ length: size }, () => ({ key: 'x' })) };
      expect(await failureOf(clients.auth.batchValidateKeys(batch))).toMatchObject({
        fields: ['requests'],
      });
    }
  });

  it('RevokeOwnKey accepts a working secret as the only credential', async () => {
    const { clients } = mount;
    const open = clientsFor('');
    const { secret, id } = await makeKey(clients);
    const answer = await open.auth.revokeOwnKey({ key: secret, reason: RevokeReason.KEY_COMPROMISE });
    expect(answer.keyId).toBe(id);
    expect(await decisionOf(clients, secret)).toBe('REVOKED');
    const expired = await makeKey(clients, { expiry: { case: 'ttl', value: { seconds: 1n } } });
    clock.advance(1_000);
    expect(await failureOf(open.auth.revokeOwnKey({ key: expired.secret, reason: 1 }))).toMatchObject({
      code: 'Unauthenticated',
      reason: 'SECRET_NOT_WORKING',
    });
    expect(await failureOf(open.auth.revokeOwnKey({ key: '', reason: 0 }))).toMatchObject({
      fields: ['key', 'reason'],
    });
  });

  it('a change is visible to the very next call', async () => {
    const { clients } = mount;
    const { secret, id } = await makeKey(clients, { scopes: ['a:b', 'c:d'] });
    const ask = () => decisionOf(clients, secret, { requiredScope: 'a:b', clientIp: '10.0.0.1' });
    const update = (fields: object, path: string) =>
      clients.admin.updateKey({ key: { id, ...fields }, updateMask: { paths: [path] } });
    expect(await ask()).toBe('VALID');
    await update({ scopes: ['c:d'] }, 'scopes');
    expect(await ask()).toBe('INSUFFICIENT_SCOPE');
    await update({ scopes: ['a:b'] }, 'scopes');
    await update({ ipAllowlist: ['10.2.0.0/16'] }, 'ip_allowlist');
    expect(await ask()).toBe('IP_NOT_ALLOWED');
    await update({ ipAllowlist: [] }, 'ip_allowlist');
    await update({ disabled: true }, 'disabled');
    expect(await ask()).toBe('DISABLED');
    await update({ disabled: false }, 'disabled');
    await clients.admin.expireKey({ id });
    expect(await ask()).toBe('EXPIRED');
    const { revision, key } = await clients.admin.revokeKey({
      id,
      reason: RevokeReason.SUPERSEDED,
      note: 'first',
    });
    expect(await ask()).toBe('REVOKED');
    expect(revision).toBe(key?.revision);
    const again = await clients.admin.revokeKey({
      id,
      reason: RevokeReason.KEY_COMPROMISE,
      note: 'second',
    });
    expect(again.key).toMatchObject({
      revokeReason: RevokeReason.SUPERSEDED,
      revokeNote: 'first',
      status: KeyStatus.REVOKED,
    });
    for (const call of [() => update({ name: 'n' }, 'name'), () => clients.admin.expireKey({ id })]) {
      expect(await failureOf(call())).toMatchObject({ code: 'FailedPrecondition', reason: 'KEY_REVOKED' });
    }
  });

  it('min_revision is honoured, or refused when it is ahead of the store', async () => {
    const { clients } = mount;
    const { secret, key } = await makeKey(clients);
    expect((await decide(clients, secret, { minRevision: key.revision })).valid).toBe(true);
    expect(
      await failureOf(decide(clients, secret, { minRevision: key.revision + 1_000_000n })),
    ).toMatchObject({ code: 'FailedPrecondition', reason: 'REVISION_NOT_REACHED' });
  });
});

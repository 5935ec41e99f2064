// If this fails, keys cannot be administered as documented, or can be without the scope, on a store or a mount.
import { expect, it } from 'vitest';
import { UsageStep } from '../../gen/apikey/v1/admin_pb.ts';
import { KeyStatus, RevokeReason } from '../../gen/apikey/v1/key_pb.ts';
import { at, decide, decisionOf, failureOf, forEveryMount, limit, makeKey, nameOf } from './cases.ts';

forEveryMount((mount) => {
  const { clock, clientsFor, transport } = mount;

  it('UpdateKey changes the fields of the mask, if the etag is current', async () => {
    const { clients } = mount;
    const { key, id } = await makeKey(clients, { metadata: { team: 'a' } });
    const { key: next } = await clients.admin.updateKey({
      key: { id, name: 'new', ownerId: 'ignored', etag: key.etag, metadata: { 'x.y': '$z' } },
      updateMask: { paths: ['name', 'metadata'] },
    });
    expect(next).toMatchObject({ name: 'new', ownerId: 'owner', metadata: { 'x.y': '$z' } });
    const stale = { key: { id, name: 'late', etag: key.etag }, updateMask: { paths: ['name'] } };
    expect(await failureOf(clients.admin.updateKey(stale))).toMatchObject({
      code: 'Aborted',
      reason: 'ETAG_MISMATCH',
    });
    for (const paths of [[], ['id'], ['name', 'key_type'], ['constructor']]) {
      expect(
        await failureOf(clients.admin.updateKey({ key: { id, name: 'x' }, updateMask: { paths } })),
      ).toMatchObject({ fields: ['update_mask'] });
    }
  });

  it('ExpireKey sets an expiry that is never later than before', async () => {
    const { clients } = mount;
    const { id, secret } = await makeKey(clients, { expiry: { case: 'ttl', value: { seconds: 3_600n } } });
    const later = { id, expireTime: at(clock.now() + 7_200_000) };
    expect(await failureOf(clients.admin.expireKey(later))).toMatchObject({
      code: 'InvalidArgument',
      fields: ['expire_time'],
    });
    const past = { id, expireTime: at(clock.now()) };
    expect(await failureOf(clients.admin.expireKey(past))).toMatchObject({ fields: ['expire_time'] });
    await clients.admin.expireKey({ id, expireTime: at(clock.now() + 5_000) });
    clock.advance(4_999);
    expect(await decisionOf(clients, secret)).toBe('VALID');
    clock.advance(1);
    expect(await decisionOf(clients, secret)).toBe('EXPIRED');
  });

  it('ListKeys returns pages, and refuses the page token of another list', async () => {
    const { clients } = mount;
    const ownerId = `owner-${transport}`;
    const made = [];
    for (let i = 0; i < 5; i++) made.push((await makeKey(clients, { ownerId })).id);
    const first = await clients.admin.listKeys({ ownerId, pageSize: 3 });
    const second = await clients.admin.listKeys({ ownerId, pageSize: 3, pageToken: first.nextPageToken });
    expect([...first.keys, ...second.keys].map(({ id }) => id).sort()).toEqual(made.sort());
    expect(second.nextPageToken).toBe('');
    for (const request of [
      { ownerId: 'x', pageToken: first.nextPageToken },
      { ownerId, pageToken: 'bm8' },
      { ownerId, pageToken: '%' },
    ]) {
      expect(await failureOf(clients.admin.listKeys(request))).toMatchObject({
        code: 'InvalidArgument',
        fields: ['page_token'],
      });
    }
    expect(await failureOf(clients.admin.listKeys({ pageSize: 1001 }))).toMatchObject({
      fields: ['page_size'],
    });
  });

  it('ListKeys filters by status and by the prefix of name or id', async () => {
    const { clients } = mount;
    const ownerId = `status-${transport}`;
    const good = await makeKey(clients, { ownerId, name: `b-${transport}` });
    const ended = await makeKey(clients, { ownerId, name: `a-${transport}` });
    await clients.admin.revokeKey({ id: ended.id, reason: RevokeReason.SUPERSEDED });
    const ids = async (request: object) =>
      (await clients.admin.listKeys({ ownerId, ...request })).keys.map(({ id }) => id);
    expect(await ids({ status: KeyStatus.REVOKED })).toEqual([ended.id]);
    expect(await ids({ status: KeyStatus.ACTIVE })).toEqual([good.id]);
    expect(await ids({ activeOnly: true, status: KeyStatus.ACTIVE })).toEqual([good.id]);
    expect(await ids({ query: 'a-' })).toEqual([ended.id]);
    expect(await ids({ query: good.id.slice(0, -1) })).toEqual([good.id]);
    const refused = [{ activeOnly: true, status: KeyStatus.EXPIRED }, { status: 99 as KeyStatus }];
    for (const request of refused)
      expect(await failureOf(clients.admin.listKeys(request))).toMatchObject({ fields: ['status'] });
    expect(await failureOf(clients.admin.listKeys({ query: 'x'.repeat(1025) }))).toMatchObject({
      fields: ['query'],
    });
  });

  it('GetKey returns the state of the limits of a key, and consumes nothing', async () => {
    const { clients } = mount;
    const { id, secret } = await makeKey(clients, { rateLimits: [limit('few', 2)] });
    const left = async () => (await clients.admin.getKey({ id })).limits.map(({ remaining }) => remaining);
    expect(await left()).toEqual([2n]);
    await decisionOf(clients, secret);
    expect(await left()).toEqual([1n]);
    expect(await left()).toEqual([1n]);
    expect(await decisionOf(clients, secret)).toBe('VALID');
    expect(await left()).toEqual([0n]);
    const unlimited = await makeKey(clients, {});
    expect((await clients.admin.getKey({ id: unlimited.id })).limits).toEqual([]);
  });

  it('WhoAmI returns the calling key whatever its scopes, and leaves an event', async () => {
    const { clients } = mount;
    const { id, secret } = await makeKey(clients, { name: 'myself', scopes: ['some:thing'] });
    expect(await clientsFor(secret).auth.whoAmI({})).toMatchObject({
      keyId: id,
      name: 'myself',
      scopes: ['some:thing'],
    });
    const { events } = await clients.admin.listAuditEvents({
      keyId: id,
      method: 'apikey.v1.ApiKeyAuth/WhoAmI',
    });
    expect(events).toMatchObject([{ outcome: 'OK', callerKeyId: id }]);
    expect(await failureOf(clientsFor('').auth.whoAmI({}))).toMatchObject({ reason: 'CREDENTIAL_MISSING' });
    await clients.admin.revokeKey({ id, reason: RevokeReason.SUPERSEDED });
    expect(await failureOf(clientsFor(secret).auth.whoAmI({}))).toMatchObject({
      reason: 'CREDENTIAL_INVALID',
    });
  });

  it('GetUsage counts the decisions about a key, an owner and all keys, and the addresses that used a key', async () => {
    const { clients } = mount;
    const ownerId = `usage-${transport}`;
    const { id, secret } = await makeKey(clients, { ownerId, scopes: ['a:b'] });
    const address = mount.freshIp();
    await decide(clients, secret, { clientIp: address, requiredScope: 'a:b' });
    await decide(clients, secret, { clientIp: address, requiredScope: 'a:b' });
    await decide(clients, secret, { clientIp: address, requiredScope: 'a:c' });
    await decide(clients, secret, { clientIp: address, requiredScope: 'a:b', dryRun: true });
    const counts = async (request: object) =>
      (await clients.admin.getUsage(request)).rows.map(({ decision, count }) => [
        nameOf(decision),
        Number(count),
      ]);
    const mine = [
      ['INSUFFICIENT_SCOPE', 1],
      ['VALID', 2],
    ];
    const endTime = at(clock.now() + 1);
    expect(await counts({ keyId: id, endTime })).toEqual(mine);
    expect(await counts({ ownerId, endTime, step: UsageStep.DAY })).toEqual(mine);
    const all = await counts({ endTime });
    for (const [decision, count] of mine)
      expect(all.find(([name]) => name === decision)?.[1]).toBeGreaterThanOrEqual(Number(count));
    const { lastAddresses } = await clients.admin.getUsage({ keyId: id, endTime });
    expect(lastAddresses).toMatchObject([{ clientIp: address, count: 3n }]);
    const day = 86_400_000;
    for (const [request, field] of [
      [{ keyId: id, ownerId }, 'owner_id'],
      [{ keyId: 'x' }, 'key_id'],
      [{ startTime: at(clock.now()), endTime: at(clock.now()) }, 'start_time'],
      [{ startTime: at(clock.now() - 32 * day) }, 'start_time'],
      [{ startTime: at(clock.now() - 401 * day), step: UsageStep.DAY }, 'start_time'],
      [{ step: 9 as UsageStep }, 'step'],
    ] as const)
      expect(await failureOf(clients.admin.getUsage(request))).toMatchObject({ fields: [field] });
  });

  it('CreateKey creates one key for a request_id within a day', async () => {
    const { clients } = mount;
    const requestId = `once-${transport}`;
    const { id } = await makeKey(clients, { requestId });
    expect(await failureOf(makeKey(clients, { requestId }))).toMatchObject({
      code: 'AlreadyExists',
      reason: 'REQUEST_ID_USED',
      text: expect.stringContaining(id),
    });
    clock.advance(24 * 3_600_000);
    expect((await makeKey(clients, { requestId })).id).not.toBe(id);
  });

  it('each call requires its scope, and nobody grants an apikeys scope without holding it', async () => {
    const { clients } = mount;
    const service = clientsFor((await makeKey(clients, { scopes: ['apikeys:validate'] })).secret);
    const auditor = clientsFor((await makeKey(clients, { scopes: ['apikeys:audit'] })).secret);
    const product = clientsFor((await makeKey(clients, { scopes: ['*', '*:admin'] })).secret);
    const { id, secret } = await makeKey(clients);
    expect(await decisionOf(service, secret)).toBe('VALID');
    const refused = { code: 'PermissionDenied', reason: 'SCOPE_MISSING' };
    expect(await failureOf(service.admin.getKey({ id }))).toMatchObject(refused);
    expect(await failureOf(service.admin.revokeKey({ id, reason: 1 }))).toMatchObject(refused);
    expect((await auditor.admin.getKey({ id })).key?.id).toBe(id);
    await auditor.admin.getStats({});
    expect(await failureOf(auditor.admin.clearLockout({ clientIp: '1.1.1.1' }))).toMatchObject(refused);
    expect(await failureOf(decide(auditor, secret))).toMatchObject(refused);
    expect(await failureOf(decide(product, secret))).toMatchObject(refused);
    expect(await failureOf(product.admin.listKeys({}))).toMatchObject(refused);
    const half = clientsFor((await makeKey(clients, { scopes: ['apikeys:admin'] })).secret);
    for (const scope of ['apikeys:*', 'apikeys:validate']) {
      expect(await failureOf(makeKey(half, { scopes: [scope] }))).toMatchObject({
        code: 'PermissionDenied',
        reason: 'SCOPE_NOT_HELD',
      });
      const update = half.admin.updateKey({
        key: { id, scopes: [scope] },
        updateMask: { paths: ['scopes'] },
      });
      expect(await failureOf(update)).toMatchObject({ reason: 'SCOPE_NOT_HELD' });
    }
    expect((await makeKey(half, { scopes: ['apikeys:admin', '*'] })).id).not.toBe('');
  });

  it('a calling key is bound by its own lifetime, allow-list and limits', async () => {
    const { clients } = mount;
    const denied = { code: 'Unauthenticated', reason: 'CREDENTIAL_INVALID' };
    const elsewhere = await makeKey(clients, { scopes: ['apikeys:*'], ipAllowlist: ['10.0.0.0/8'] });
    expect(await failureOf(clientsFor(elsewhere.secret).admin.getStats({}))).toMatchObject(denied);
    const limited = await makeKey(clients, { scopes: ['apikeys:*'], rateLimits: [limit('m', 2)] });
    const caller = clientsFor(limited.secret);
    await caller.admin.getKey({ id: limited.id });
    await caller.admin.getKey({ id: limited.id });
    expect(await failureOf(caller.admin.getKey({ id: limited.id }))).toMatchObject({
      code: 'ResourceExhausted',
      reason: 'CALLER_RATE_LIMITED',
    });
    await clients.admin.revokeKey({ id: limited.id, reason: 1 });
    expect(await failureOf(caller.admin.getKey({ id: limited.id }))).toMatchObject(denied);
    expect(await failureOf(clientsFor('').admin.getStats({}))).toMatchObject({
      code: 'Unauthenticated',
      reason: 'CREDENTIAL_MISSING',
    });
  });

  it('names every invalid field before anything is read or written', async () => {
    const { clients } = mount;
    const before = (await clients.admin.getStats({})).keysByStatus;
    const wrong = {
      name: '',
      ownerId: 'o'.repeat(1025),
      keyType: 99,
      scopes: ['tra*', 'ok'],
      rateLimits: [limit('a b', 1), limit('x', 0), { name: 'w', limit: 1n }, limit('x', 1, 10)],
      ipAllowlist: ['10.0.0.0/99'],
      metadata: { k: 'v'.repeat(4097) },
      expiry: { case: 'expireTime', value: at(clock.now()) },
    };
    const failure = await failureOf(makeKey(clients, wrong));
    expect(failure).toMatchObject({
      code: 'InvalidArgument',
      reason: 'INVALID_REQUEST',
      domain: 'apikey.v1',
    });
    expect(failure.fields).toEqual([
      'key_type',
      'name',
      'owner_id',
      'scopes[0]',
      'rate_limits[0].name',
      'rate_limits[1].limit',
      'rate_limits[2].window',
      'rate_limits[3].name',
      'rate_limits[3].window',
      'ip_allowlist[0]',
      'metadata[k]',
      'expire_time',
    ]);
    const cases: [() => Promise<unknown>, string][] = [
      [() => makeKey(clients, { scopes: [] }), 'scopes'],
      [() => makeKey(clients, { keyType: 0 }), 'key_type'],
      [() => makeKey(clients, { expiry: { case: 'ttl', value: { seconds: 0n } } }), 'ttl'],
      [() => makeKey(clients, { scopes: Array.from({ length: 65 }, (_, i) => `s${i}`) }), 'scopes'],
      [() => decide(clients, 'x', { requiredScope: '' }), 'required_scope'],
      [() => decide(clients, 'x', { requiredScope: 'a:*' }), 'required_scope'],
      [() => decide(clients, 'x', { clientIp: '1.2.3' }), 'client_ip'],
      [() => decide(clients, 'x', { cost: 1_000_000_001n }), 'cost'],
      [() => decide(clients, 'x', { requestId: 'r'.repeat(1025) }), 'request_id'],
      [() => decide(clients, 'x', { minRevision: -1n }), 'min_revision'],
      [() => clients.admin.getKey({ id: 'nope' }), 'id'],
      [() => clients.admin.revokeKey({ id: 'uid-apikey-0000000000000000' }), 'reason'],
      [() => clients.admin.listAuditEvents({ clientIp: 'x' }), 'client_ip'],
    ];
    for (const [call, field] of cases) expect((await failureOf(call())).fields).toEqual([field]);
    expect((await clients.admin.getStats({})).keysByStatus).toEqual(before);
    const unknown = clients.admin.getKey({ id: 'uid-apikey-0000000000000000' });
    expect(await failureOf(unknown)).toMatchObject({ code: 'NotFound', reason: 'KEY_NOT_FOUND' });
  });
});

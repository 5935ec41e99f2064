// If this fails, secrets cannot be replaced without downtime, or can be without the scope, on a store or a mount.
import { durationFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { expect, it, vi } from 'vitest';
import { KeyType, RotationMode, RotationState, SecretSlot } from '../../gen/apikey/v1/key_pb.ts';
import { type Alert, AlertType, AnomalyState, AnomalyType } from '../../gen/apikey/v1/watch_pb.ts';
import { ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { HANGS_MS } from '../support/hangs.ts';
import type { Clients } from '../support/server.ts';
import { at, decide, decisionOf, failureOf, forEveryMount, makeKey } from './cases.ts';

const HOUR = 3_600_000;
const hours = (n: number) => durationFromMs(n * HOUR);

forEveryMount((mount) => {
  const { clock, clientsFor, freshIp } = mount;

  it('RotateKey keeps both secrets working during the grace period, and ValidateKey says which one was used', async () => {
    const { clients } = mount;
    const { id, secret: old, key } = await makeKey(clients);
    const begun = clock.now();
    const { key: rotated, secret } = await clients.admin.rotateKey({ id, grace: hours(1) });
    expect(rotated).toMatchObject({
      id,
      scopes: key.scopes,
      rotation: { state: RotationState.ACTIVE, mode: RotationMode.MANUAL },
    });
    expect(rotated?.etag).not.toBe(key.etag);
    expect(rotated?.hint.slice(-4)).toBe(secret.slice(-4));
    const end = begun + HOUR;
    const withOld = await decide(clients, old);
    expect(withOld).toMatchObject({ valid: true, secretSlot: SecretSlot.PREVIOUS });
    expect(withOld.previousSecretExpireTime && timestampMs(withOld.previousSecretExpireTime)).toBe(end);
    expect(await decide(clients, secret)).toMatchObject({ valid: true, secretSlot: SecretSlot.CURRENT });
    // The record is cached by now, and obeys the boundary to the millisecond.
    clock.advance(HOUR - 1);
    expect(await decisionOf(clients, old)).toBe('VALID');
    clock.advance(1);
    expect(await decisionOf(clients, old)).toBe('ROTATED');
    expect(await decisionOf(clients, secret)).toBe('VALID');
    expect((await clients.admin.getKey({ id })).key?.rotation?.state).toBe(RotationState.EXPIRED);
    await clients.admin.completeRotation({ id });
    // Now it is a retired one.
    expect(await decide(clients, old)).toMatchObject({ keyId: id, secretSlot: SecretSlot.UNSPECIFIED });
    expect(await decisionOf(clients, old)).toBe('ROTATED');
    expect((await clients.admin.getKey({ id })).key?.rotation?.state).toBe(RotationState.NONE);
  });

  it('RotateKey refuses with a reason, and then changes nothing', async () => {
    const { clients } = mount;
    const { id, secret: old } = await makeKey(clients);
    const refused = (request: object) => failureOf(clients.admin.rotateKey({ id, ...request }));
    for (const grace of [hours(0), durationFromMs(HOUR - 1), durationFromMs(168 * HOUR + 1)]) {
      expect(await refused({ grace })).toMatchObject({
        code: 'InvalidArgument',
        reason: 'GRACE_OUT_OF_BOUNDS',
        fields: ['grace'],
      });
    }
    expect(await refused({ grace: { seconds: -1n } })).toMatchObject({
      reason: 'INVALID_REQUEST',
      fields: ['grace'],
    });
    expect(await refused({ mode: 9 })).toMatchObject({ fields: ['mode'] });
    expect(await failureOf(clients.admin.completeRotation({ id }))).toMatchObject({
      code: 'FailedPrecondition',
      reason: 'NO_ROTATION',
    });
    const { secret } = await clients.admin.rotateKey({ id });
    expect(await refused({})).toMatchObject({ code: 'FailedPrecondition', reason: 'ROTATION_IN_PROGRESS' });
    expect(await decisionOf(clients, old)).toBe('VALID');
    expect(await decisionOf(clients, secret)).toBe('VALID');
    await clients.admin.revokeKey({ id, reason: 1 });
    expect(await refused({ mode: RotationMode.FORCED })).toMatchObject({ reason: 'KEY_REVOKED' });
    expect([await decisionOf(clients, old), await decisionOf(clients, secret)]).toEqual([
      'REVOKED',
      'REVOKED',
    ]);
    const expired = await makeKey(clients);
    await clients.admin.expireKey({ id: expired.id });
    expect(await failureOf(clients.admin.rotateKey({ id: expired.id }))).toMatchObject({
      reason: 'KEY_EXPIRED',
    });
    expect(await failureOf(clients.admin.rotateKey({ id: 'uid-apikey-0000000000000000' }))).toMatchObject({
      code: 'NotFound',
    });
  });

  it('FORCED ends every older secret at once, and the current one after the grace period', async () => {
    const { clients } = mount;
    const { id, secret: first } = await makeKey(clients);
    const second = (await clients.admin.rotateKey({ id })).secret;
    expect(await decisionOf(clients, first)).toBe('VALID');
    const third = (await clients.admin.rotateKey({ id, mode: RotationMode.FORCED })).secret;
    expect(await decisionOf(clients, first)).toBe('ROTATED');
    expect(await decisionOf(clients, second)).toBe('VALID');
    const fourth = (await clients.admin.rotateKey({ id, mode: RotationMode.FORCED, grace: hours(0) })).secret;
    for (const dead of [first, second, third]) expect(await decisionOf(clients, dead)).toBe('ROTATED');
    expect(await decisionOf(clients, fourth)).toBe('VALID');
    const emergency = await makeKey(clients, { keyType: KeyType.EMERGENCY });
    await clients.admin.rotateKey({ id: emergency.id });
    expect(await decisionOf(clients, emergency.secret)).toBe('ROTATED');
  });

  it('CompleteRotation ends a grace period early, and the next rotation completes one that is over', async () => {
    const { clients } = mount;
    const { id, secret: old } = await makeKey(clients);
    await clients.admin.rotateKey({ id });
    await clients.admin.completeRotation({ id });
    expect(await decisionOf(clients, old)).toBe('ROTATED');
    const second = (await clients.admin.rotateKey({ id, grace: hours(1) })).secret;
    clock.advance(HOUR);
    await clients.admin.rotateKey({ id, grace: hours(1) });
    expect(await decisionOf(clients, second)).toBe('VALID');
    // That use is counted a little after its answer, and would else be between two of the lists below.
    await vi.waitFor(
      async () => expect((await clients.admin.getKey({ id })).key?.rotation?.oldUses).toBe(1n),
      HANGS_MS,
    );
    const { rotations } = await clients.admin.listRotations({ keyId: id });
    expect(rotations).toHaveLength(3);
    expect(rotations.map(({ completeTime }) => completeTime === undefined)).toEqual([true, false, false]);
    const first = await clients.admin.listRotations({ keyId: id, pageSize: 2 });
    const rest = await clients.admin.listRotations({
      keyId: id,
      pageSize: 2,
      pageToken: first.nextPageToken,
    });
    expect([...first.rotations, ...rest.rotations]).toEqual(rotations);
  });

  it('the old and the new secret share limits, and a rotation never extends expire_time', async () => {
    const { clients } = mount;
    const expireTime = at(clock.now() + 2 * HOUR);
    const { id, secret: old } = await makeKey(clients, {
      rateLimits: [{ name: 'm', limit: 2n, window: { seconds: 3_600n } }],
      expiry: { case: 'expireTime', value: expireTime },
    });
    const { secret, key } = await clients.admin.rotateKey({ id });
    expect(key?.expireTime).toEqual(expireTime);
    expect(await decisionOf(clients, old)).toBe('VALID');
    expect(await decisionOf(clients, secret)).toBe('VALID');
    expect(await decisionOf(clients, old)).toBe('RATE_LIMITED');
  });

  it('RotateKey gives the secret of a key with apikeys scopes only to a caller that holds them', async () => {
    const { clients } = mount;
    const owner = await makeKey(clients, { scopes: ['apikeys:*'] });
    const admin = clientsFor((await makeKey(clients, { scopes: ['apikeys:admin'] })).secret);
    expect(await failureOf(admin.admin.rotateKey({ id: owner.id }))).toMatchObject({
      reason: 'SCOPE_NOT_HELD',
    });
    expect(await decisionOf(clients, owner.secret)).toBe('VALID');
    const reader = clientsFor((await makeKey(clients, { scopes: ['apikeys:audit'] })).secret);
    await reader.admin.listRotations({});
    await reader.admin.listAnomalies({});
    expect(await failureOf(reader.admin.rotateKey({ id: owner.id }))).toMatchObject({
      reason: 'SCOPE_MISSING',
    });
    // The caller's own key may be in a rotation too.
    await clients.admin.rotateKey({ id: owner.id, grace: hours(1) });
    await clientsFor(owner.secret).admin.getStats({});
    clock.advance(HOUR);
    expect(await failureOf(clientsFor(owner.secret).admin.getStats({}))).toMatchObject({
      code: 'Unauthenticated',
      reason: 'CREDENTIAL_INVALID',
    });
  });

  it('a key has its rotate_every, and the time when the next rotation is due', async () => {
    const { clients } = mount;
    const made = await makeKey(clients, { rotateEvery: hours(24) });
    expect(made.key.rotateEvery?.seconds).toBe(86_400n);
    expect(made.key.rotationDueTime).toEqual(at(clock.now() + 24 * HOUR));
    const { key } = await clients.admin.updateKey({
      key: { id: made.id },
      updateMask: { paths: ['rotate_every'] },
    });
    expect(key?.rotationDueTime).toBeUndefined();
    const wrong = {
      key: { id: made.id, rotateEvery: { seconds: 1n } },
      updateMask: { paths: ['rotate_every'] },
    };
    expect(await failureOf(clients.admin.updateKey(wrong))).toMatchObject({ fields: ['key.rotate_every'] });
  });

  it('ListRotations counts the uses of an old secret', async () => {
    const { clients } = mount;
    const { id, secret } = await makeKey(clients);
    await clients.admin.rotateKey({ id });
    const clientIp = freshIp();
    for (let i = 0; i < 3; i++) await decide(clients, secret, { clientIp });
    await vi.waitFor(
      async () => expect((await clients.admin.getKey({ id })).key?.rotation?.oldUses).toBe(3n),
      HANGS_MS,
    );
    const [rotation] = (await clients.admin.listRotations({ keyId: id })).rotations;
    expect(rotation).toMatchObject({ oldUses: 3n, lastOldUseIp: clientIp });
  });

  /** Reads alerts into a list until it is stopped. */
  const watching = (clients: Clients, request: Parameters<Clients['admin']['watchAlerts']>[0]) => {
    const seen: Alert[] = [];
    const stop = new AbortController();
    const over = (async () => {
      try {
        for await (const { alert } of clients.admin.watchAlerts(request, { signal: stop.signal }))
          if (alert) seen.push(alert);
        return undefined;
      } catch (error) {
        return ConnectError.from(error);
      }
    })();
    return { seen, stop: () => stop.abort(), over };
  };

  it('an anomaly is opened, sent to every subscriber, and resolved once', async () => {
    const { clients } = mount;
    const since = at(clock.now());
    const first = watching(clients, { sinceTime: since });
    const second = watching(clients, { sinceTime: since });
    const { id, secret } = await makeKey(clients);
    for (let i = 0; i < 6; i++) await decide(clients, secret, { clientIp: freshIp() });
    for (const { seen } of [first, second]) {
      await vi.waitFor(() => expect(seen.filter(({ keyId }) => keyId === id)).toHaveLength(1), HANGS_MS);
      expect(seen.find(({ keyId }) => keyId === id)).toMatchObject({
        type: AlertType.ANOMALY,
        detail: { anomaly: 'MULTIPLE_IPS' },
      });
    }
    // Only new alerts.
    const late = watching(clients, {});
    const [anomaly] = (await clients.admin.listAnomalies({ keyId: id, state: AnomalyState.OPEN })).anomalies;
    expect(anomaly).toMatchObject({ type: AnomalyType.MULTIPLE_IPS, count: 1n });
    const { anomaly: resolved } = await clients.admin.resolveAnomaly({ id: anomaly?.id ?? '' });
    expect(resolved?.state).toBe(AnomalyState.RESOLVED);
    expect((await clients.admin.resolveAnomaly({ id: anomaly?.id ?? '' })).anomaly).toEqual(resolved);
    expect(await failureOf(clients.admin.resolveAnomaly({ id: 'anomaly-x' }))).toMatchObject({
      code: 'NotFound',
      reason: 'ANOMALY_NOT_FOUND',
    });
    clock.advance(1);
    const ip = freshIp();
    for (let i = 0; i < 5; i++) await decide(clients, 'x', { clientIp: ip });
    await vi.waitFor(() => expect(late.seen.map(({ clientIp }) => clientIp)).toEqual([ip]), HANGS_MS);
    for (const stream of [first, second, late]) {
      stream.stop();
      expect((await stream.over)?.code).toBe(Code.Canceled);
    }
    const { events } = await clients.admin.listAuditEvents({
      method: 'apikey.v1.ApiKeyAdmin/WatchAlerts',
      startTime: since,
    });
    expect(events.map(({ outcome }) => outcome)).toEqual(['OK', 'OK', 'OK']);
  });

  it('WatchAlerts ends when the key of its caller is revoked, and requires its scope', async () => {
    const { clients } = mount;
    const { id, secret } = await makeKey(clients, { scopes: ['apikeys:audit'] });
    const stream = watching(clientsFor(secret), {});
    await vi.waitFor(
      async () => expect((await clients.admin.listAuditEvents({ callerKeyId: id })).events).toHaveLength(1),
      HANGS_MS,
    );
    await clients.admin.revokeKey({ id, reason: 1 });
    const ended = await stream.over;
    expect(ended?.code).toBe(Code.Unauthenticated);
    expect(ended?.findDetails(ErrorInfoSchema)[0]?.reason).toBe('CREDENTIAL_INVALID');
    const validator = clientsFor((await makeKey(clients, { scopes: ['apikeys:validate'] })).secret);
    const refused = await watching(validator, {}).over;
    expect(refused?.code).toBe(Code.PermissionDenied);
  });
});

import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { at, limit, makeKey } from '../rpc/cases.ts';
import type { TestClock } from '../support/clock.ts';
import type { Clients } from '../support/server.ts';

const HOUR_MS = 3_600_000;

/** A key for each kind of change, and the decision about each secret after the change. */
export async function narrowed(clients: Clients, clock: TestClock) {
  const wide = {
    scopes: ['traces:*', 'metrics:read'],
    rateLimits: [limit('calls', 100)],
    ipAllowlist: ['10.0.0.0/8'],
  };
  const make = () => makeKey(clients, wide);
  const keys = {
    revoked: await make(),
    expired: await make(),
    expiring: await make(),
    disabled: await make(),
    scopes: await make(),
    allowlist: await make(),
    limits: await make(),
    rotated: await make(),
    completed: await make(),
    twice: await make(),
    everything: await make(),
    widened: await make(),
    untouched: await make(),
  };
  const secrets = Object.fromEntries(Object.entries(keys).map(([name, { secret }]) => [name, secret]));
  let { admin } = clients;
  const update = (id: string, fields: object, ...paths: string[]) =>
    admin.updateKey({ key: { id, ...fields }, updateMask: { paths } });
  const rotate = async (id: string, mode: RotationMode, hours: number) =>
    (await admin.rotateKey({ id, mode, grace: { seconds: BigInt(hours * 3_600) } })).secret;
  const narrow = async (now: Clients) => {
    ({ admin } = now);
    await admin.revokeKey({ id: keys.revoked.id, reason: 1, note: 'found' });
    await admin.expireKey({ id: keys.expired.id });
    await admin.expireKey({ id: keys.expiring.id, expireTime: at(clock.now() + HOUR_MS) });
    await update(keys.disabled.id, { disabled: true }, 'disabled');
    await update(keys.scopes.id, { scopes: ['traces:read'] }, 'scopes');
    await update(keys.allowlist.id, { ipAllowlist: ['10.1.0.0/16'] }, 'ip_allowlist');
    await update(keys.limits.id, { rateLimits: [limit('calls', 1)] }, 'rate_limits');
    secrets.rotatedNew = await rotate(keys.rotated.id, RotationMode.MANUAL, 1);
    secrets.completedNew = await rotate(keys.completed.id, RotationMode.MANUAL, 1);
    await admin.completeRotation({ id: keys.completed.id });
    secrets.twiceOnce = await rotate(keys.twice.id, RotationMode.FORCED, 0);
    secrets.twiceNew = await rotate(keys.twice.id, RotationMode.FORCED, 0);
    const { id } = keys.everything;
    await update(id, { scopes: ['metrics:read'], ipAllowlist: ['10.9.0.0/16'] }, 'scopes', 'ip_allowlist');
    secrets.everythingNew = await rotate(id, RotationMode.FORCED, 0);
    await update(id, { disabled: true }, 'disabled');
    await update(keys.widened.id, { disabled: true, scopes: ['traces:read'] }, 'disabled', 'scopes');
    await update(keys.widened.id, { disabled: false }, 'disabled');
  };
  return { keys, secrets, narrow };
}

/** The reasons against each secret, asked in several ways, without taking from limits. */
export async function answers(clients: Clients, secrets: Record<string, string>) {
  const told: Record<string, string> = {};
  for (const [name, key] of Object.entries(secrets))
    for (const requiredScope of ['traces:read', 'traces:write', 'metrics:read'])
      for (const clientIp of ['10.1.2.3', '10.9.2.3', '11.0.0.1']) {
        const asked = { key, requiredScope, clientIp, dryRun: true };
        const { decision, reasons, rateLimits } = await clients.auth.validateKey(asked);
        const limits = rateLimits.map((each) => `${each.name} ${each.limit}`);
        told[`${name} ${requiredScope} ${clientIp}`] = [decision, ...reasons, ...limits].join(' ');
      }
  return told;
}

/** The changes that a start has repeated, by their events. */
export async function againEvents({ admin }: Clients) {
  const { events } = await admin.listAuditEvents({ outcome: 'OK', pageSize: 1_000 });
  const again = events.filter(({ method }) => method === 'apikeyd/reconcile');
  return again.map(({ keyId, reason }) => `${keyId} ${reason.replace(/ again .*/, '')}`).sort();
}

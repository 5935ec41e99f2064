import { IpAllowlist } from '../../src/keys/ip.ts';
import type { Key } from '../../src/keys/key.ts';
import type { AuditEntry, CallOrigin } from '../../src/keys/ports/audit.ts';
import { hashSecret, hintOf, mintEtag, mintKeyId, mintSecret } from '../../src/keys/secret.ts';

/** A new key and its secret, with the fields that the test overrides. */
export function keyWith(fields: Partial<Key> = {}): { key: Key; secret: string } {
  const secret = mintSecret();
  const id = mintKeyId();
  const key: Key = {
    id,
    name: 'test',
    ownerId: 'owner',
    type: 'SERVICE',
    secrets: [{ hash: hashSecret(secret), createTime: 1_000 }],
    hint: hintOf(secret),
    scopes: ['traces:read'],
    rateLimits: [],
    rateLimitBucket: id,
    ipAllowlist: new IpAllowlist([]),
    metadata: {},
    disabled: false,
    createTime: 1_000,
    expireTime: undefined,
    expired: false,
    rotation: undefined,
    rotateEveryMs: undefined,
    localValidation: false,
    everLocal: false,
    revokeTime: undefined,
    revokeReason: undefined,
    revokeNote: '',
    lastUseTime: undefined,
    requestId: undefined,
    etag: mintEtag(),
    revision: 0,
    ...fields,
  };
  return { key, secret };
}

export function entryWith(fields: Partial<AuditEntry> = {}): AuditEntry {
  return {
    method: 'apikey.v1.ApiKeyAuth/ValidateKey',
    time: 1_000,
    outcome: 'DECISION_VALID',
    reason: '',
    keyId: '',
    callerKeyId: '',
    keyFingerprint: '',
    requiredScope: '',
    clientIp: '',
    clientIpIsPeer: false,
    userAgent: '',
    secretSlot: '',
    cost: 1,
    dryRun: false,
    latencyMicros: 12,
    requestId: '',
    refusedCalls: 0,
    count: 0,
    firstTime: 0,
    ...fields,
  };
}

export const ORIGIN: CallOrigin = {
  method: 'apikey.v1.ApiKeyAdmin/Test',
  arriveTime: 1_000,
  arriveMonotonic: 1_000,
  peerIp: '127.0.0.1',
  callerKeyId: 'uid-apikey-00000000000000ff',
  callerScopes: ['apikeys:*'],
  requestId: '',
};

/** All pages of a list, read in pages of `size`. */
export async function allPages<T>(
  list: (page: { size: number; after: readonly (string | number)[] | undefined }) => Promise<{
    items: readonly T[];
    next: readonly (string | number)[] | undefined;
  }>,
  size = 7,
): Promise<T[]> {
  const all: T[] = [];
  let after: readonly (string | number)[] | undefined;
  do {
    const page = await list({ size, after });
    all.push(...page.items);
    after = page.next;
  } while (after !== undefined);
  return all;
}

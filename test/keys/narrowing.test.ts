// If this fails, a restored backup admits keys that were revoked, narrowed or rotated since, or narrows unchanged keys.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { allDenials } from '../../src/keys/check.ts';
import { IpAllowlist } from '../../src/keys/ip.ts';
import { type Key, slotOf } from '../../src/keys/key.ts';
import { type Correction, changesStanding, correctionOf, standingOf } from '../../src/keys/narrowing.ts';
import { keyWith } from '../support/keys.ts';

const RUNS = { seed: 2020, numRuns: process.env.LONG ? 5_000 : 50 };
const SECRETS = ['a', 'b', 'c', 'd'].map((digit) => digit.repeat(64));
const SCOPES = ['traces:read', 'traces:write', 'metrics:read', 'traces', 'apikeys:admin', 'a:b:c'];
const ADDRESSES = ['10.0.0.1', '10.0.1.1', '192.168.0.9', '2001:db8::1', '2001:db9::1', undefined];
const TIMES = [0, 499, 500, 999, 1_000, 5_000];

const anyKey = fc
  .record({
    scopes: fc.subarray([...SCOPES, '*', '*:read', 'traces:*', 'apikeys:*'], { minLength: 1 }),
    cidrs: fc.subarray([
      ...['10.0.0.0/8', '10.0.0.0/24', '0.0.0.0/0', '192.168.0.9/32'],
      ...['2001:db8::/32', '2001:db8::1/128', '::/0'],
    ]),
    limits: fc.subarray([
      { name: 'a', limit: 1, windowMs: 1_000 },
      { name: 'a', limit: 9, windowMs: 2_000 },
      { name: 'b', limit: 5, windowMs: 1_000 },
    ]),
    disabled: fc.boolean(),
    expired: fc.boolean(),
    expireTime: fc.constantFrom(undefined, 0, 500, 1_000),
    revokeTime: fc.constantFrom(undefined, undefined, 0, 700),
    secrets: fc.subarray(SECRETS, { minLength: 1, maxLength: 2 }),
    graceMs: fc.constantFrom(500, 1_000),
  })
  .map(({ cidrs, limits, secrets, graceMs, ...fields }) => {
    const rotation = { id: `r${secrets}`, mode: 'MANUAL' as const, startTime: 0, expireTime: graceMs };
    return keyWith({
      ...fields,
      id: 'uid-apikey-0123456789abcdef',
      etag: 'e',
      ipAllowlist: new IpAllowlist(cidrs),
      rateLimits: limits,
      secrets: secrets.map((hash) => ({ hash, createTime: 0 })),
      rotation: secrets.length > 1 ? rotation : undefined,
      ...(fields.revokeTime === undefined ? {} : { revokeReason: 'SUPERSEDED' as const }),
    }).key;
  });

/** Everything that is wrong, one after the other. */
function putRight(key: Key, later: Key, retired: readonly string[] = []): Correction[] {
  const steps: Correction[] = [];
  // As it is read from the log.
  const standing = JSON.parse(JSON.stringify(standingOf(later)));
  for (let at = key; ; ) {
    const step = correctionOf(
      at,
      standing,
      retired.map((hash) => ({ hash, time: 1 })),
    );
    if (step === undefined) return steps;
    steps.push(step);
    expect(steps.length, 'it comes to an end').toBeLessThan(10);
    at = step.key;
  }
}

function* questions() {
  for (const hash of SECRETS)
    for (const requiredScope of SCOPES)
      for (const clientIp of ADDRESSES) for (const now of TIMES) yield { hash, requiredScope, clientIp, now };
}

function letsThrough(
  key: Key,
  hash: string,
  question: { requiredScope: string; clientIp?: string; now: number },
) {
  const slot = slotOf({ key }, hash);
  if (slot === undefined) return false;
  return allDenials(key, slot, { clientIp: undefined, ...question }).length === 0;
}

describe('a key of a backup, narrowed to its later state', () => {
  it('admits nothing that the later state denies', () => {
    fc.assert(
      fc.property(anyKey, anyKey, (backup, later) => {
        const key = putRight(backup, later).at(-1)?.key ?? backup;
        for (const { hash, ...question } of questions())
          if (letsThrough(key, hash, question as never))
            expect(letsThrough(later, hash, question as never), JSON.stringify({ hash, question })).toBe(
              true,
            );
        for (const limit of later.rateLimits)
          expect(key.rateLimits.some((own) => own.name === limit.name && own.limit <= limit.limit)).toBe(
            true,
          );
      }),
      RUNS,
    );
  });

  it('admits everything that both states admit', () => {
    fc.assert(
      fc.property(anyKey, anyKey, (backup, later) => {
        const key = putRight(backup, later).at(-1)?.key ?? backup;
        for (const { hash, ...question } of questions())
          if (letsThrough(backup, hash, question as never) && letsThrough(later, hash, question as never))
            expect(letsThrough(key, hash, question as never), JSON.stringify({ hash, question })).toBe(true);
      }),
      RUNS,
    );
  });

  it('needs no change when both are equal, and else names the parts that differ', () => {
    fc.assert(
      fc.property(anyKey, anyKey, (backup, later) => {
        expect(putRight(backup, backup)).toEqual([]);
        expect(changesStanding(backup, { ...backup, name: 'other', etag: 'f', lastUseTime: 7 })).toBe(false);
        const facets = putRight(backup, later).map(({ facet }) => facet);
        expect(new Set(facets).size).toBe(facets.length);
        if (facets.length > 0) expect(changesStanding(backup, later)).toBe(true);
      }),
      RUNS,
    );
  });

  it('leaves no secret unknown that once worked', () => {
    fc.assert(
      fc.property(anyKey, anyKey, fc.subarray(SECRETS), (backup, later, retired) => {
        const steps = putRight(backup, later, retired);
        const rotated = steps.find(({ facet }) => facet === 'ROTATED');
        const known = [...(rotated?.effects.retired ?? []), ...later.secrets.map(({ hash }) => hash)];
        if (rotated === undefined) return;
        for (const { hash } of backup.secrets) expect(known).toContain(hash);
        for (const hash of retired) expect(known).toContain(hash);
        for (const { hash } of later.secrets) expect(rotated.effects.retired).not.toContain(hash);
      }),
      RUNS,
    );
  });

  it('keeps the time and reason of its revocation', () => {
    const { key } = keyWith();
    const later = { ...key, revokeTime: 7, revokeReason: 'KEY_COMPROMISE' as const, revokeNote: 'found' };
    expect(putRight(key, later)).toMatchObject([
      {
        facet: 'REVOKED',
        change: 'REVOKED',
        key: { revokeTime: 7, revokeReason: 'KEY_COMPROMISE', revokeNote: 'found' },
      },
    ]);
  });
});

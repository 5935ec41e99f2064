// If this fails, keys are taken for good that are not, or refused that are good.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { allDenials, firstDenial } from '../../src/keys/check.ts';
import { IpAllowlist, normalizeCidr, normalizeIp } from '../../src/keys/ip.ts';
import { slotOf, statusOf } from '../../src/keys/key.ts';
import { type Counters, type QuotaRequest, retryAfterMs, take } from '../../src/keys/quota.ts';
import { isGrant, isRequirableScope, matchingGrant } from '../../src/keys/scope.ts';
import { hashSecret, isSecret, mintKeyId, mintSecret, sameHash } from '../../src/keys/secret.ts';
import { keyWith } from '../support/keys.ts';
import vectors from './scope-vectors.json' with { type: 'json' };

describe('secret', () => {
  it('is generated in its format, never the same twice', () => {
    const minted = Array.from({ length: 1000 }, mintSecret);
    expect(minted.every((secret) => /^audit_v1_[A-Za-z0-9_-]{22}$/.test(secret) && isSecret(secret))).toBe(
      true,
    );
    expect(new Set(minted).size).toBe(1000);
    expect(mintKeyId()).toMatch(/^uid-apikey-[0-9a-f]{16}$/);
  });

  it.each([
    ['audit_v1_kXj9mP2nQ5vR8sT7uV3wY4zX5cV6bN7m', 'the 41-character sample of an old system'],
    [' audit_v1_AAAAAAAAAAAAAAAAAAAAAA', 'a leading blank'],
    ['audit_v1_AAAAAAAAAAAAAAAAAAAAAA\n', 'a line end'],
    ['audit_v1_AAAAAAAAAAAAAAAAAAAAA', 'one too few'],
    ['AUDIT_v1_AAAAAAAAAAAAAAAAAAAAAA', 'another case'],
    ['audit_v1_AAAAAAAAAAAAAAAAAAAAA+', 'plain base64'],
    ['', 'nothing'],
  ])('refuses %j: %s', (text) => expect(isSecret(text)).toBe(false));

  it('may have any last character: no canonical form is required', () => {
    for (const last of 'AQgwBCDZz09-_') expect(isSecret(`audit_v1_AAAAAAAAAAAAAAAAAAAAA${last}`)).toBe(true);
  });

  it('is compared with a corrupt or missing hash without an exception', () => {
    const hash = hashSecret('x');
    expect(sameHash(hash, hash)).toBe(true);
    for (const stored of [
      undefined,
      '',
      'zz',
      hash.slice(1),
      hash.toUpperCase(),
      `${hash}00`,
      '0'.repeat(64),
    ]) {
      expect(sameHash(hash, stored)).toBe(false);
    }
    expect(sameHash('0'.repeat(64), undefined)).toBe(false);
    expect(sameHash('0'.repeat(64), 'corrupt')).toBe(false);
  });
});

describe('scopes', () => {
  it.each(vectors)('$grant for $required: $match', ({ grant, required, match }) => {
    expect(isGrant(grant)).toBe(true);
    expect(isRequirableScope(required)).toBe(true);
    expect(matchingGrant([grant], required)).toBe(match ? grant : undefined);
  });

  it.each(['', ':', 'a:', ':a', 'a::b', 'tra*', '*a', 'a b', 'a/b', 'ä', 'a:**'])(
    'refuses %j as a grant',
    (text) => {
      expect(isGrant(text)).toBe(false);
    },
  );

  it('are refused with * as a required scope', () => expect(isRequirableScope('*')).toBe(false));
});

describe('addresses', () => {
  it.each([
    ['1.2.3.4', '1.2.3.4'],
    ['::ffff:1.2.3.4', '1.2.3.4'],
    ['::FFFF:102:304', '1.2.3.4'],
    ['2001:DB8:0:0::1', '2001:db8::1'],
    ['fe80::1%eth0', undefined],
    ['1.2.3', undefined],
    ['1.2.3.4/8', undefined],
    ['', undefined],
  ])('%s is %s', (text, ip) => expect(normalizeIp(text)).toBe(ip));

  it.each([
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['10.0.0.1', '10.0.0.1/32'],
    ['::1', '::1/128'],
    ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
    ['10.0.0.0/33', undefined],
    ['10.0.0.0/', undefined],
    ['10.0.0.0/8/8', undefined],
    ['10.0.0.0/-1', undefined],
    ['::ffff:10.0.0.0/24', undefined],
  ])('%s as a CIDR is %s', (text, cidr) => expect(normalizeCidr(text)).toBe(cidr));

  it('are allowed when they are in the list, IPv4 and IPv6', () => {
    const list = new IpAllowlist(['10.0.0.0/8', '2001:db8::/32', '192.0.2.7/32']);
    for (const ip of ['10.255.0.1', '2001:db8:1::5', '192.0.2.7']) expect(list.allows(ip)).toBe(true);
    for (const ip of ['11.0.0.1', '2001:db9::1', '192.0.2.8', undefined]) expect(list.allows(ip)).toBe(false);
    expect(new IpAllowlist([]).allows(undefined)).toBe(true);
  });
});

describe('the order of denials', () => {
  const question = { requiredScope: 'a:b', clientIp: '9.9.9.9', now: 5_000 };
  const worst = {
    revokeTime: 1,
    disabled: true,
    expireTime: 5_000,
    rotation: { id: 'r', mode: 'MANUAL', startTime: 0, expireTime: 5_000 },
    ipAllowlist: new IpAllowlist(['10.0.0.0/8']),
    scopes: ['x'],
  };
  const cures = [
    { revokeTime: undefined },
    { disabled: false },
    { expireTime: 5_001 },
    { rotation: { id: 'r', mode: 'MANUAL', startTime: 0, expireTime: 5_001 } },
    { ipAllowlist: new IpAllowlist([]) },
    { scopes: ['a:*'] },
  ];
  const order = ['REVOKED', 'DISABLED', 'EXPIRED', 'ROTATED', 'IP_NOT_ALLOWED', 'INSUFFICIENT_SCOPE'];

  it('is that of behaviour.md 2, for each reason with all later ones', () => {
    let fields = { ...worst } as Record<string, unknown>;
    for (const [i, cure] of cures.entries()) {
      const { key } = keyWith(fields);
      expect(firstDenial(key, 'PREVIOUS', question)).toBe(order[i]);
      expect(allDenials(key, 'PREVIOUS', question)).toEqual(order.slice(i));
      fields = { ...fields, ...cure };
    }
    expect(firstDenial(keyWith(fields).key, 'PREVIOUS', question)).toBeUndefined();
  });

  it('a key expires exactly at its time, as a decision and as a state', () => {
    const { key } = keyWith({ expireTime: 5_000 });
    const at = (now: number) =>
      firstDenial(key, 'CURRENT', { requiredScope: undefined, clientIp: undefined, now });
    expect([at(4_999), at(5_000), at(5_001)]).toEqual([undefined, 'EXPIRED', 'EXPIRED']);
    expect(statusOf(keyWith({ expired: true }).key, 0)).toBe('EXPIRED');
    expect(statusOf(keyWith({ disabled: true, expired: true }).key, 0)).toBe('DISABLED');
  });

  it('the slot of a secret is found', () => {
    const { key, secret } = keyWith();
    const old = mintSecret();
    const rotated = { ...key, secrets: [...key.secrets, { hash: hashSecret(old), createTime: 0 }] };
    expect(slotOf({ key: rotated }, hashSecret(secret))).toBe('CURRENT');
    expect(slotOf({ key: rotated }, hashSecret(old))).toBe('PREVIOUS');
    expect(slotOf({ key: rotated }, hashSecret(mintSecret()))).toBeUndefined();
    expect(slotOf({ key: { ...key, secrets: [] } }, hashSecret(secret))).toBeUndefined();
    expect(slotOf({ key, retired: true }, hashSecret(old))).toBe('RETIRED');
  });
});

describe('quota arithmetic', () => {
  const limits = [
    { name: 'a', limit: 10, windowMs: 1_000 },
    { name: 'b', limit: 25, windowMs: 5_000 },
  ];

  it('never admits more than a limit in a window, and a denial changes nothing', () => {
    const asks = fc.array(
      fc.record({ cost: fc.integer({ min: 1, max: 30 }), wait: fc.integer({ min: 0, max: 900 }) }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(asks, (steps) => {
        let counters: Counters = {};
        let now = 0;
        // An independent account: the window of each limit as [start, used].
        const account = limits.map(() => ({ start: Number.NEGATIVE_INFINITY, used: 0 }));
        for (const { cost, wait } of steps) {
          now += wait;
          for (const [i, limit] of limits.entries()) {
            const window = account[i];
            if (window !== undefined && now >= window.start + limit.windowMs)
              account[i] = { start: Number.NaN, used: 0 };
          }
          const fits = limits.every((limit, i) => (account[i]?.used ?? 0) + cost <= limit.limit);
          const request: QuotaRequest = { bucket: 'b', limits, cost };
          const taken = take(request, counters, now);
          expect(taken.admitted).toBe(fits);
          if (!fits) expect(taken.counters).toBe(counters);
          for (const window of account) {
            if (!fits) continue;
            if (Number.isNaN(window.start) || window.used === 0) window.start = now;
            window.used += cost;
          }
          counters = taken.counters;
          expect(taken.states.map(({ remaining }) => remaining)).toEqual(
            limits.map((limit, i) => limit.limit - (account[i]?.used ?? 0)),
          );
        }
      }),
    );
  });

  it('returns the wait for all limits, and none when waiting does not help', () => {
    const full = take({ bucket: 'b', limits, cost: 10 }, {}, 0);
    expect(retryAfterMs(take({ bucket: 'b', limits, cost: 1 }, full.counters, 400).states)).toBe(600);
    const both = take(
      { bucket: 'b', limits: limits.map((l) => ({ ...l, limit: 10 })), cost: 1 },
      full.counters,
      400,
    );
    expect(retryAfterMs(both.states)).toBe(4_600);
    expect(retryAfterMs(take({ bucket: 'b', limits, cost: 26 }, full.counters, 400).states)).toBeUndefined();
  });
});

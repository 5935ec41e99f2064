// If this fails, an old secret works too long or dies too early, or a key has more working secrets than it may.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { firstDenial } from '../../src/keys/check.ts';
import { ApiError } from '../../src/keys/errors.ts';
import { KEY_TYPES, type Key, slotOf } from '../../src/keys/key.ts';
import {
  completeRotation,
  graceOf,
  MAX_ACTIVE_SECRETS,
  rotate,
  rotationDueTime,
  rotationStateOf,
} from '../../src/keys/rotation.ts';
import { hashSecret } from '../../src/keys/secret.ts';
import { keyWith } from '../support/keys.ts';

const HOUR = 3_600_000;
const BOUNDS = { minMs: HOUR, maxMs: 168 * HOUR };
const secret = (n: number) => hashSecret(`secret ${n}`);
const minted = (n: number) => ({ hash: secret(n), hint: `h${n}`, rotationId: `rotation-${n}` });

type Step =
  | { do: 'rotate' | 'force'; graceMs: number }
  | { do: 'complete' | 'revoke' | 'expire' }
  | { do: 'wait'; ms: number };

const steps = fc.array(
  fc.oneof(
    fc.record({
      do: fc.constantFrom('rotate' as const, 'force' as const),
      graceMs: fc.constantFrom(0, HOUR, 24 * HOUR, 168 * HOUR),
    }),
    fc.record({
      do: fc.constantFrom('complete' as const, 'complete' as const, 'revoke' as const, 'expire' as const),
    }),
    fc.record({
      do: fc.constant('wait' as const),
      ms: fc.constantFrom(1, HOUR - 1, HOUR, 24 * HOUR, 200 * HOUR),
    }),
  ),
  { maxLength: 30 },
);

/** The table of docs/design/rules.md 4, independent of the code: until when each secret works. */
class Table {
  readonly until = new Map<number, number>([[0, Number.POSITIVE_INFINITY]]);
  current = 0;
  previous: number | undefined;
  ended: 'REVOKED' | 'EXPIRED' | undefined;

  works(n: number, now: number): boolean {
    return this.ended === undefined && now < (this.until.get(n) ?? 0);
  }

  rotate(n: number, graceMs: number, now: number): void {
    if (this.previous !== undefined)
      this.until.set(this.previous, Math.min(now, this.until.get(this.previous) ?? 0));
    this.until.set(this.current, now + graceMs);
    this.until.set(n, Number.POSITIVE_INFINITY);
    this.previous = graceMs === 0 ? undefined : this.current;
    this.current = n;
  }

  complete(now: number): void {
    if (this.previous !== undefined)
      this.until.set(this.previous, Math.min(now, this.until.get(this.previous) ?? 0));
    this.previous = undefined;
  }
}

describe('rotation', () => {
  it('lets each secret work exactly when the table says, over any sequence of changes and waits', () => {
    fc.assert(
      fc.property(steps, (sequence: Step[]) => {
        const table = new Table();
        const retired = new Set<string>();
        let key: Key = { ...keyWith().key, secrets: [{ hash: secret(0), createTime: 0 }] };
        let now = 1_000;
        let last = 0;
        for (const step of sequence) {
          try {
            if (step.do === 'wait') now += step.ms;
            else if (step.do === 'revoke') {
              key = { ...key, revokeTime: key.revokeTime ?? now };
              table.ended = 'REVOKED';
            } else if (step.do === 'expire') {
              key = { ...key, expired: true };
              table.ended ??= 'EXPIRED';
            } else {
              const mode = step.do === 'force' ? 'FORCED' : 'MANUAL';
              const graceMs = 'graceMs' in step ? step.graceMs : 0;
              const change =
                step.do === 'complete'
                  ? completeRotation(key, now)
                  : rotate(key, mode, graceMs, minted(last + 1), now);
              for (const hash of change.effects.retired) retired.add(hash);
              key = change.key;
              if (step.do === 'complete') table.complete(now);
              else table.rotate(++last, graceMs, now);
            }
          } catch (error) {
            // A refusal changes nothing, and is one that the page lists.
            expect(error).toBeInstanceOf(ApiError);
            const { code } = error as ApiError;
            if (code === 'NO_ROTATION') expect(table.previous).toBeUndefined();
            else if (code === 'ROTATION_IN_PROGRESS')
              expect(table.works(table.previous ?? -1, now)).toBe(true);
            else expect(code).toBe(table.ended === 'REVOKED' ? 'KEY_REVOKED' : 'KEY_EXPIRED');
          }
          let working = 0;
          for (let n = 0; n <= last; n++) {
            const found = { key, ...(retired.has(secret(n)) ? { retired: true as const } : {}) };
            const slot = slotOf(found, secret(n));
            const denial =
              slot === undefined
                ? 'NOT_FOUND'
                : firstDenial(key, slot, { requiredScope: undefined, clientIp: undefined, now });
            expect(denial === undefined, `secret ${n} at ${now}`).toBe(table.works(n, now));
            if (denial === undefined) working++;
            else expect(denial).toBe(table.ended ?? 'ROTATED');
          }
          expect(working).toBeLessThanOrEqual(MAX_ACTIVE_SECRETS);
          expect(key.secrets.length).toBeLessThanOrEqual(MAX_ACTIVE_SECRETS);
        }
      }),
      { numRuns: process.env.LONG ? 100_000 : 2_000 },
    );
  });

  it('ends the grace period exactly at its time', () => {
    const { key } = rotate(keyWith().key, 'MANUAL', HOUR, minted(1), 1_000);
    expect(rotationStateOf(key, 1_000 + HOUR - 1)).toBe('ACTIVE');
    expect(rotationStateOf(key, 1_000 + HOUR)).toBe('EXPIRED');
    expect(rotationStateOf(keyWith().key, 0)).toBe('NONE');
  });

  it('never extends expire_time, and keeps everything but the secrets', () => {
    const { key } = keyWith({ expireTime: 5 * HOUR, scopes: ['a:b'], metadata: { a: 'b' } });
    const rotated = rotate(key, 'MANUAL', 24 * HOUR, minted(1), 1_000).key;
    expect({ ...rotated, secrets: key.secrets, hint: key.hint, rotation: undefined }).toEqual(key);
  });

  it('records its start and its completion', () => {
    const first = rotate(keyWith().key, 'MANUAL', HOUR, minted(1), 1_000);
    expect(first.effects).toMatchObject({
      begun: { id: 'rotation-1', completeTime: undefined },
      retired: [],
    });
    const forced = rotate(first.key, 'FORCED', 0, minted(2), 2_000);
    expect(forced.effects).toMatchObject({
      begun: { id: 'rotation-2', completeTime: 2_000 },
      completed: { id: 'rotation-1', time: 2_000 },
    });
    expect(forced.effects.retired).toHaveLength(2);
    expect(forced.key.rotation).toBeUndefined();
  });

  it('computes when the next rotation is due', () => {
    expect(rotationDueTime(keyWith({ rotateEveryMs: 10 }).key)).toBe(1_010);
    expect(rotationDueTime(keyWith().key)).toBeUndefined();
  });
});

describe('grace', () => {
  const DEFAULTS = { SYSTEM: 72, USER: 24, SERVICE: 48, INTEGRATION: 24, EMERGENCY: 0 };

  it.each(KEY_TYPES)('of %s has its default length, forced or not', (type) => {
    expect(graceOf(type, 'MANUAL', undefined, BOUNDS)).toBe(DEFAULTS[type] * HOUR);
    expect(graceOf(type, 'FORCED', undefined, BOUNDS)).toBe(type === 'EMERGENCY' ? 0 : HOUR);
  });

  it('may be as long as its bounds, and 0 only for EMERGENCY or FORCED', () => {
    for (const ms of [HOUR, 168 * HOUR]) expect(graceOf('USER', 'MANUAL', ms, BOUNDS)).toBe(ms);
    expect(graceOf('EMERGENCY', 'MANUAL', 0, BOUNDS)).toBe(0);
    expect(graceOf('USER', 'FORCED', 0, BOUNDS)).toBe(0);
    for (const ms of [0, 1, HOUR - 1, 168 * HOUR + 1]) {
      let refusal: ApiError | undefined;
      try {
        graceOf('USER', 'MANUAL', ms, BOUNDS);
      } catch (error) {
        refusal = error as ApiError;
      }
      expect(refusal).toMatchObject({
        code: 'GRACE_OUT_OF_BOUNDS',
        facts: { metadata: { min_seconds: '3600', max_seconds: '604800', zero_allowed: 'false' } },
      });
    }
    expect(() => graceOf('USER', 'FORCED', 1, BOUNDS)).toThrow('0, or 3600 s to 604800 s');
  });

  it('keeps its defaults within the configured bounds', () => {
    expect(graceOf('SYSTEM', 'MANUAL', undefined, { minMs: HOUR, maxMs: 2 * HOUR })).toBe(2 * HOUR);
    expect(graceOf('USER', 'FORCED', undefined, { minMs: 3 * HOUR, maxMs: 9 * HOUR })).toBe(3 * HOUR);
  });
});

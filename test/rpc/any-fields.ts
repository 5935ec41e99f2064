import fc from 'fast-check';
import { expect } from 'vitest';

/** Also texts that no client library sends: halves of surrogate pairs. */
export const anyText = fc.oneof(
  { weight: 30, arbitrary: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }) },
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.array(fc.nat(0xffff), { maxLength: 6 }).map((units) => String.fromCharCode(...units)),
  fc.constantFrom(
    '',
    '\0',
    'a\0b',
    '\n',
    '__proto__',
    ' x ',
    'x'.repeat(1_024),
    'x'.repeat(1_025),
    '\u202e',
    '\ud800',
  ),
);
const INT64 = 2n ** 63n;
const anyLimit = fc.oneof(
  { weight: 10, arbitrary: fc.bigInt({ min: 1n, max: 1_000_000_000n }) },
  fc.bigInt({ min: 0n, max: 2n * INT64 - 1n }),
  fc.bigInt({ min: -4n * INT64, max: 4n * INT64 }),
);
/** In milliseconds. */
const anySpan = fc.oneof(
  { weight: 10, arbitrary: fc.integer({ min: 1_000, max: 366 * 86_400_000 }) },
  fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  fc.constantFrom(0, 1, -1, 315_576_000_000_000, 315_576_000_001_000, -Number.MAX_SAFE_INTEGER),
);
const anyTime = fc.oneof(
  { weight: 10, arbitrary: fc.integer({ min: Date.parse('2100-01-01'), max: Date.parse('9999-12-31') }) },
  fc.integer({ min: Date.parse('0001-01-01T00:00:00Z'), max: Date.parse('9999-12-31T23:59:59Z') }),
  fc.integer({ min: -8.64e15, max: 8.64e15 }),
);
/** Valid fields of a key. */
export const fields = fc.record(
  {
    name: anyText,
    ownerId: anyText,
    rateLimitBucket: anyText,
    metadata: fc.dictionary(anyText, anyText, { maxKeys: 2 }),
    rateLimits: fc.array(
      fc.record({ name: fc.constantFrom('a', 'b', 'c.d', 'e f', ''), limit: anyLimit, window: anySpan }),
      { maxLength: 2 },
    ),
    expireTime: anyTime,
    rotateEvery: anySpan,
    localValidation: fc.boolean(),
  },
  { requiredKeys: ['name', 'ownerId'] },
);
export type Fields = typeof fields extends fc.Arbitrary<infer T> ? T : never;

const span = (ms: number) =>
  `${ms < 0 ? '-' : ''}${Math.trunc(Math.abs(ms) / 1000)}.${String(Math.abs(ms) % 1000).padStart(3, '0')}s`;
const spanOf = (text: string) => Math.round(Number(text.slice(0, -1)) * 1000);

/** The message as JSON, whatever is in it. */
export function toJson({ rateLimits, expireTime, rotateEvery, ...texts }: Fields) {
  return {
    keyType: 'KEY_TYPE_SERVICE',
    scopes: ['a:b'],
    ...texts,
    ...(rateLimits === undefined
      ? {}
      : {
          rateLimits: rateLimits.map((each) => ({
            ...each,
            limit: String(each.limit),
            window: span(each.window),
          })),
        }),
    ...(expireTime === undefined ? {} : { expireTime: new Date(expireTime).toISOString() }),
    ...(rotateEvery === undefined ? {} : { rotateEvery: span(rotateEvery) }),
  };
}

/** A key as JSON. */
export type KeyJson = Record<string, unknown>;

/** Checks that the key has the fields that were sent. */
export function expectFields(key: KeyJson, sent: Fields): void {
  expect([key.name, key.ownerId]).toEqual([sent.name, sent.ownerId]);
  if (sent.rateLimitBucket !== undefined) expect(key.rateLimitBucket).toBe(sent.rateLimitBucket || key.id);
  expect(Object.entries(key.metadata ?? {}).sort()).toEqual(Object.entries(sent.metadata ?? {}).sort());
  const limits = (key.rateLimits ?? []) as { name: string; limit: string; window: string }[];
  expect(limits.map(({ name, limit, window }) => [name, BigInt(limit), spanOf(window)])).toEqual(
    (sent.rateLimits ?? []).map(({ name, limit, window }) => [name, limit, window]),
  );
  if (sent.expireTime !== undefined) expect(Date.parse(String(key.expireTime))).toBe(sent.expireTime);
  expect(key.localValidation === true).toBe(sent.localValidation === true);
  expect(key.rotateEvery === undefined ? 0 : spanOf(String(key.rotateEvery))).toBe(sent.rotateEvery ?? 0);
}

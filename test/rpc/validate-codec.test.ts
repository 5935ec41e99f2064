// If this fails, callers get another decision than was made, or a decision about another key than they sent.
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ValidateKeyRequest,
  ValidateKeyRequestSchema,
  ValidateKeyResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';
import { validateCodec } from '../../src/rpc/validate-codec.ts';

const RUNS = { seed: 2008, numRuns: process.env.LONG ? 100_000 : 3_000 };
const text = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: 'grapheme', maxLength: 200 }),
  fc.constant('a'.repeat(300)),
);
const ascii = fc.string({ unit: 'grapheme-ascii', maxLength: 60 });
const mostlyAscii = fc.oneof({ weight: 20, arbitrary: ascii }, text);
/** All of Unicode, control characters and the longest texts included. */
const anyText = fc.oneof(
  { weight: 8, arbitrary: text },
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.constantFrom('\0', '名'.repeat(1_024), '名'.repeat(4_096), 'x'.repeat(20_000)),
);
const few = fc.nat(16_000).map(BigInt);
const count = fc.oneof(fc.nat(), fc.maxSafeNat()).map(BigInt);
const INT64 = 2n ** 63n;
const int64 = fc.oneof(
  { weight: 20, arbitrary: count },
  fc.bigInt({ min: -INT64, max: INT64 - 1n }),
  fc.constantFrom(-1n, -62_135_596_800n, -315_619_200n, 253_402_300_799n, -INT64, INT64 - 1n, 2n ** 53n),
);
const uint64 = fc.oneof({ weight: 20, arbitrary: count }, fc.bigInt({ min: 0n, max: 2n * INT64 - 1n }));
const anyTime = fc.record({
  seconds: int64,
  nanos: fc.oneof({ weight: 20, arbitrary: fc.nat(999_999_999) }, fc.integer()),
});
const some = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined });
/** Without the fields that are absent. */
const present = <T extends object>(of: fc.Arbitrary<T>) =>
  of.map((fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)));

const request = present(
  fc.record({
    key: mostlyAscii,
    requiredScope: some(mostlyAscii),
    clientIp: mostlyAscii,
    userAgent: mostlyAscii,
    requestId: mostlyAscii,
    cost: fc.oneof({ weight: 20, arbitrary: few }, count),
    dryRun: fc.boolean(),
    minRevision: fc.oneof({ weight: 20, arbitrary: few }, count),
  }),
);
const limit = present(
  fc.record({
    name: anyText,
    bucket: anyText,
    limit: uint64,
    window: anyTime,
    remaining: uint64,
    exceeded: fc.boolean(),
    resetTime: some(anyTime),
    retryAfter: some(anyTime),
  }),
);
const response = present(
  fc.record({
    decision: fc.nat(11),
    valid: fc.boolean(),
    keyId: anyText,
    keyType: fc.nat(5),
    ownerId: anyText,
    matchedScope: anyText,
    expireTime: some(anyTime),
    secretSlot: fc.nat(2),
    previousSecretExpireTime: some(anyTime),
    rateLimits: fc.array(limit, { maxLength: 20 }),
    unlimited: fc.boolean(),
    retryAfter: some(anyTime),
    reasons: fc.array(fc.integer({ min: 1, max: 11 }), { maxLength: 200 }),
    revision: int64,
    cacheAge: some(anyTime),
  }),
);

type Answer = MessageInitShape<typeof ValidateKeyResponseSchema>;

/** The fields that are read of a request. */
const read = ({ $typeName, $unknown, ...fields }: Partial<ValidateKeyRequest>) => ({
  requiredScope: undefined,
  ...fields,
});

describe('the codec of ValidateKey', () => {
  it('writes the same bytes as protobuf-es, or leaves the message to it', () => {
    let written = 0;
    fc.assert(
      fc.property(response, (fields) => {
        const message = fields as MessageInitShape<typeof ValidateKeyResponseSchema>;
        const bytes = validateCodec.encode(message);
        if (bytes === undefined) return;
        written++;
        const expected = toBinary(ValidateKeyResponseSchema, create(ValidateKeyResponseSchema, message));
        expect(Buffer.from(bytes).toString('hex')).toBe(Buffer.from(expected).toString('hex'));
      }),
      RUNS,
    );
    expect(written).toBeGreaterThan(RUNS.numRuns / 10);
  });

  it('writes the expiry of a key that expired in 1960, or in year 1', () => {
    for (const seconds of [-315_619_200n, -62_135_596_800n]) {
      const message: Answer = { decision: 6, expireTime: { seconds, nanos: 0 } };
      expect(validateCodec.encode(message)).toBeUndefined();
      const limits = { rateLimits: [{ name: 'a', resetTime: { seconds, nanos: 0 } }] };
      expect(validateCodec.encode(limits)).toBeUndefined();
    }
  });

  it('writes a common response itself, and the longest possible response completely', () => {
    const long = '名'.repeat(1_024);
    const limit = { name: 'n'.repeat(64), bucket: long, limit: 5n, remaining: 3n };
    const messages: Answer[] = [
      { decision: 11, valid: true, ownerId: 'alice' },
      { ownerId: long, rateLimits: Array(16).fill(limit) },
    ];
    for (const message of messages) {
      const expected = toBinary(ValidateKeyResponseSchema, create(ValidateKeyResponseSchema, message));
      const bytes = validateCodec.encode(message);
      expect(Buffer.from(bytes ?? expected).equals(expected)).toBe(true);
      expect(bytes === undefined).toBe('rateLimits' in message);
    }
  });

  it('reads the same request as protobuf-es, or leaves the message to it', () => {
    let plain = 0;
    fc.assert(
      fc.property(request, (fields) => {
        const message = create(ValidateKeyRequestSchema, fields as object);
        const decoded = validateCodec.decode(toBinary(ValidateKeyRequestSchema, message));
        if (decoded === undefined) return;
        plain++;
        expect(read(decoded)).toEqual(read(message));
      }),
      RUNS,
    );
    expect(plain).toBeGreaterThan(RUNS.numRuns / 2);
  });

  it('reads a common request itself', () => {
    const fields = { key: 'k', requiredScope: 'traces:read', clientIp: '10.1.2.3', cost: 300n, dryRun: true };
    const bytes = toBinary(ValidateKeyRequestSchema, create(ValidateKeyRequestSchema, fields));
    expect(validateCodec.decode(bytes)).toMatchObject(fields);
  });

  it('never accepts a message that protobuf-es refuses, nor reads one differently', () => {
    const bytes = toBinary(
      ValidateKeyRequestSchema,
      create(ValidateKeyRequestSchema, { key: 'audit_v1_x', requiredScope: 'a:b', cost: 7n, dryRun: true }),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }), fc.nat(40), (changes, cut) => {
        const damaged = Uint8Array.from(bytes.subarray(0, Math.max(0, bytes.length - Math.max(0, cut - 30))));
        if (damaged.length > 0) for (const [at, value] of changes) damaged[at % damaged.length] = value;
        const decoded = validateCodec.decode(damaged);
        if (decoded === undefined) return;
        const expected = fromBinary(ValidateKeyRequestSchema, damaged);
        expect(expected.$unknown ?? []).toEqual([]);
        expect(read(decoded)).toEqual(read(expected));
      }),
      RUNS,
    );
  });
});

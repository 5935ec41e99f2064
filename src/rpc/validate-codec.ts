import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ValidateKeyRequest, ValidateKeyResponseSchema } from '../../gen/apikey/v1/auth_pb.ts';
import type { Codec } from './method.ts';

type Response = MessageInitShape<typeof ValidateKeyResponseSchema>;
type RateLimit = NonNullable<Response['rateLimits']>[number];
interface Time {
  readonly seconds?: bigint;
  readonly nanos?: number;
}

const SCRATCH = Buffer.allocUnsafeSlow(65_536);
/** Characters of all texts of a response, and of one limit: longer texts might exceed the two bytes of the length. */
const MAX_TEXT = 16_384;
const MAX_LIMIT_TEXT = 4_096;

/**
 * A hand-written codec for the two messages of nearly all calls: the general codec made a third of a call's
 * allocations. Unusual messages are left to the general codec, so only that one decides about errors.
 */
export const validateCodec: Codec<ValidateKeyRequest, Response> = { decode, encode };

/** Undefined for unusual messages: unknown fields, other wire types, non-ASCII letters, large numbers. */
function decode(bytes: Uint8Array): ValidateKeyRequest | undefined {
  const request = {
    key: '',
    requiredScope: undefined as string | undefined,
    clientIp: '',
    userAgent: '',
    requestId: '',
    cost: 0n,
    dryRun: false,
    minRevision: 0n,
    wantFacts: false,
  };
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < buffer.length; ) {
    const tag = buffer[at++] ?? 0;
    const isText = (tag & 7) === 2;
    let value = buffer[at++];
    if (value === undefined) return undefined;
    if (value >= 0x80) {
      const high = buffer[at++];
      if (high === undefined || high >= 0x80) return undefined;
      value = (value & 0x7f) | (high << 7);
    }
    if (!isText) {
      if (tag === 0x30) request.cost = BigInt(value);
      else if (tag === 0x38 && value <= 1) request.dryRun = value === 1;
      else if (tag === 0x40) request.minRevision = BigInt(value);
      else return undefined;
      continue;
    }
    const end = at + value;
    if (end > buffer.length) return undefined;
    for (let i = at; i < end; i++) if ((buffer[i] ?? 0) >= 0x80) return undefined;
    const text = buffer.toString('latin1', at, end);
    at = end;
    if (tag === 0x0a) request.key = text;
    else if (tag === 0x12) request.requiredScope = text;
    else if (tag === 0x1a) request.clientIp = text;
    else if (tag === 0x22) request.userAgent = text;
    else if (tag === 0x2a) request.requestId = text;
    else return undefined;
  }
  return request as unknown as ValidateKeyRequest;
}

/** Undefined when the response does not fit or has unusual values. Writes the same bytes as protobuf-es. */
function encode(response: Response): Uint8Array | undefined {
  if (!isPlain(response)) return undefined;
  const limits = response.rateLimits ?? [];
  let at = number(0, 0x08, response.decision ?? 0);
  at = number(at, 0x10, response.valid === true ? 1 : 0);
  at = text(at, 0x1a, response.keyId);
  at = number(at, 0x20, response.keyType ?? 0);
  at = text(at, 0x2a, response.ownerId);
  at = text(at, 0x32, response.matchedScope);
  at = time(at, 0x3a, response.expireTime);
  at = number(at, 0x40, response.secretSlot ?? 0);
  at = time(at, 0x4a, response.previousSecretExpireTime);
  for (const limit of limits) at = rateLimit(at, limit);
  at = number(at, 0x58, response.unlimited === true ? 1 : 0);
  at = time(at, 0x62, response.retryAfter);
  const reasons = response.reasons ?? [];
  if (reasons.length > 0) {
    SCRATCH[at++] = 0x6a;
    SCRATCH[at++] = reasons.length;
    for (const reason of reasons) SCRATCH[at++] = reason;
  }
  at = number(at, 0x70, Number(response.revision ?? 0n));
  at = time(at, 0x7a, response.cacheAge);
  return Buffer.from(SCRATCH.subarray(0, at));
}

function isPlain(response: Response): boolean {
  if (response.facts !== undefined) return false;
  const { ownerId, matchedScope, keyId, rateLimits = [], reasons = [] } = response;
  let room = MAX_TEXT - textOf(ownerId) - textOf(matchedScope) - textOf(keyId);
  for (const limit of rateLimits) {
    const length = textOf(limit.name) + textOf(limit.bucket);
    room -= length;
    if (length > MAX_LIMIT_TEXT || !isPlainLimit(limit)) return false;
  }
  return (
    room >= 0 &&
    rateLimits.length <= 16 &&
    reasons.length < 0x80 &&
    isPlainNumber(response.revision) &&
    isPlainTime(response.expireTime) &&
    isPlainTime(response.previousSecretExpireTime) &&
    isPlainTime(response.retryAfter) &&
    isPlainTime(response.cacheAge)
  );
}

function isPlainLimit({ limit, remaining, window, resetTime, retryAfter }: RateLimit): boolean {
  return (
    isPlainNumber(limit) &&
    isPlainNumber(remaining) &&
    isPlainTime(window) &&
    isPlainTime(resetTime) &&
    isPlainTime(retryAfter)
  );
}

/** Negative values take ten bytes each, in two's complement: times before 1970, which are rare. */
function isPlainTime(value: Time | undefined): boolean {
  return value === undefined || (isPlainNumber(value.seconds) && (value.nanos ?? 0) >= 0);
}

function isPlainNumber(value: bigint | undefined): boolean {
  if (value === undefined) return true;
  // Comparing bigints would take longer than the rest of the encoding.
  const rounded = Number(value);
  return rounded >= 0 && rounded <= Number.MAX_SAFE_INTEGER;
}

function textOf(value: string | undefined): number {
  return value === undefined ? 0 : value.length;
}

function rateLimit(start: number, limit: RateLimit): number {
  SCRATCH[start] = 0x52;
  let at = text(start + 2, 0x0a, limit.name);
  at = text(at, 0x12, limit.bucket);
  at = number(at, 0x18, Number(limit.limit ?? 0n));
  at = time(at, 0x22, limit.window);
  at = number(at, 0x28, Number(limit.remaining ?? 0n));
  at = time(at, 0x32, limit.resetTime);
  at = time(at, 0x3a, limit.retryAfter);
  return lengthOf(number(at, 0x40, limit.exceeded === true ? 1 : 0), start + 1);
}

/** Writes a Timestamp or a Duration. */
function time(start: number, tag: number, value: Time | undefined): number {
  if (value === undefined) return start;
  SCRATCH[start] = tag;
  const at = number(start + 2, 0x08, Number(value.seconds ?? 0n));
  return lengthOf(number(at, 0x10, value.nanos ?? 0), start + 1);
}

/** Writes the length of the bytes after `at`, where one byte was reserved. */
function lengthOf(end: number, at: number): number {
  const length = end - at - 1;
  if (length < 0x80) {
    SCRATCH[at] = length;
    return end;
  }
  SCRATCH.copyWithin(at + 2, at + 1, end);
  SCRATCH[at] = (length & 0x7f) | 0x80;
  SCRATCH[at + 1] = length >> 7;
  return end + 1;
}

function number(at: number, tag: number, value: number): number {
  if (value === 0) return at;
  SCRATCH[at] = tag;
  return varint(at + 1, value);
}

function varint(at: number, value: number): number {
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) SCRATCH[at++] = (rest % 0x80) | 0x80;
  SCRATCH[at] = rest;
  return at + 1;
}

function text(at: number, tag: number, value: string | undefined): number {
  if (value === undefined || value === '') return at;
  SCRATCH[at] = tag;
  const bytes = Buffer.byteLength(value);
  const begin = varint(at + 1, bytes);
  return begin + SCRATCH.write(value, begin);
}

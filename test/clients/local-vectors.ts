/** Questions that guards decide under a lease, and the decisions of the server's own rules. See clients/conformance. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, fromJson, type JsonObject, toJson } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { type KeyFacts, KeyFactsSchema, ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { SecretSlot } from '../../gen/apikey/v1/key_pb.ts';
import { firstDenial } from '../../src/keys/check.ts';
import { Violations } from '../../src/keys/errors.ts';
import { IpAllowlist, networkOf, normalizeCidr, normalizeIp } from '../../src/keys/ip.ts';
import type { Key } from '../../src/keys/key.ts';
import { toFactsMessage, toValidateInput } from '../../src/rpc/convert.ts';
import { keyWith } from '../support/keys.ts';
import { ROOT } from '../support/tools.ts';

export interface LocalQuestion {
  readonly scope?: string;
  readonly clientIp?: string;
  readonly afterMs?: number;
  readonly decision: string;
}

export interface LocalKey {
  readonly name: string;
  readonly lockedAddresses?: readonly string[];
  readonly facts: JsonObject;
  readonly questions: readonly LocalQuestion[];
}

interface LocalVectors {
  readonly serverTime: string;
  readonly keys: readonly LocalKey[];
}

const WRITTEN = join(ROOT, 'clients/conformance/local.json');
export const LOCAL_VECTORS: LocalVectors = JSON.parse(readFileSync(WRITTEN, 'utf8'));
export const SERVER_TIME = Date.parse(LOCAL_VECTORS.serverTime);

/** The key of which a server tells these facts. */
function keyOf(facts: KeyFacts): { key: Key; slot: 'CURRENT' | 'PREVIOUS' } {
  const ends = facts.previousSecretExpireTime;
  const { key } = keyWith({
    scopes: facts.scopes,
    ipAllowlist: new IpAllowlist(facts.ipAllowlist),
    expired: facts.expired,
    expireTime: facts.expireTime && timestampMs(facts.expireTime),
    rotation: ends && { id: 'r', mode: 'MANUAL', startTime: 0, expireTime: timestampMs(ends) },
    localValidation: true,
  });
  return { key, slot: facts.secretSlot === SecretSlot.PREVIOUS ? 'PREVIOUS' : 'CURRENT' };
}

/** The question in the server's terms; undefined where the server refuses it. */
export function inputOf({ scope, clientIp = '' }: Omit<LocalQuestion, 'decision'>) {
  const found = new Violations();
  const fields = { key: 'k', clientIp, ...(scope === undefined ? {} : { requiredScope: scope }) };
  const input = toValidateInput(found, '', create(ValidateKeyRequestSchema, fields));
  return found.found.length === 0 ? input : undefined;
}

/** The server's decision; ASK where a guard leaves the question to it: it would refuse it, or the address is locked out. */
export function decisionOfServer(
  facts: KeyFacts,
  locked: readonly string[],
  question: Omit<LocalQuestion, 'decision'>,
): string {
  const input = inputOf(question);
  if (input === undefined) return 'ASK';
  if (input.clientIp !== undefined && locked.includes(networkOf(input.clientIp))) return 'ASK';
  const { key, slot } = keyOf(facts);
  return firstDenial(key, slot, { ...input, now: SERVER_TIME + (question.afterMs ?? 0) }) ?? 'VALID';
}

/** The facts as the server would tell them. */
export function factsFromServer(facts: KeyFacts): KeyFacts {
  const { key, slot } = keyOf(facts);
  const found = { key, revision: Number(facts.revision), ageMs: 0 };
  const verdict = { decision: 'VALID', reasons: [], key, slot, found } as const;
  return create(KeyFactsSchema, toFactsMessage(verdict, facts.epoch));
}

const SEGMENTS = ['apikeys', 'traces', 'read', 'a', 'A', '-._'];
const segment = fc.constantFrom(...SEGMENTS);
const grant = fc
  .array(fc.oneof(segment, fc.constant('*')), { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join(':'));
const scope = fc.oneof(
  { weight: 6, arbitrary: fc.array(segment, { minLength: 1, maxLength: 3 }).map((parts) => parts.join(':')) },
  { weight: 1, arbitrary: grant },
  { weight: 1, arbitrary: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 6 }) },
  { weight: 1, arbitrary: fc.nat(1).map((more) => 'x'.repeat(1_024 + more)) },
);

/** Few networks, so that questions meet the lists; and both families anywhere. */
const group = fc.oneof(
  fc.constantFrom('0', '1', 'ffff', '8000'),
  fc.nat(0xffff).map((n) => n.toString(16)),
);
const ipv4 = fc.oneof(
  fc.nat(255).map((last) => `10.1.2.${last}`),
  fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((parts) => parts.join('.')),
);
const ipv6 = fc.oneof(
  fc.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.join(':')),
  fc
    .tuple(fc.array(group, { maxLength: 4 }), fc.array(group, { maxLength: 3 }))
    .map(([head, tail]) => `${head.join(':')}::${tail.join(':')}`),
  ipv4.map((address) => `::ffff:${address}`),
  ipv4.map((address) => `::${address}`),
  ipv4.map((address) => `64:ff9b::${address}`),
  fc.tuple(group, group).map(([high, low]) => `::ffff:${high}:${low}`),
  fc.constantFrom('::', '::1', '2001:db8::1', '2001:DB8::8000'),
);
const address = fc.oneof(ipv4, ipv6);
/** Nearly an address: one character more, or another. */
const damaged = fc
  .tuple(address, fc.nat(), fc.constantFrom(...'0123456789abcdefABCDEF:.%/ \u0661\u0000'), fc.nat(1))
  .map(([text, at, character, cut]) => {
    const index = at % (text.length + 1);
    return text.slice(0, index) + character + text.slice(index + cut);
  });
const asked = fc.oneof(
  { weight: 6, arbitrary: address },
  { weight: 1, arbitrary: fc.constant('') },
  { weight: 2, arbitrary: damaged },
);
const cidr = fc
  .tuple(address, fc.oneof(fc.constantFrom(0, 8, 32, 64, 96, 128), fc.nat(128)))
  .map(([text, length]) => normalizeCidr(`${text}/${length}`))
  .filter((text) => text !== undefined);
const locked = fc.array(
  address.map((text) => networkOf(normalizeIp(text) ?? '')),
  { maxLength: 3 },
);

/** Eighths of a second have an exact form in every language. */
const time = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: -2, max: 8 }).map((n) => SERVER_TIME + n * 125) },
  { weight: 1, arbitrary: fc.constantFrom(0, Date.parse('9999-12-31T23:59:59.999Z')) },
);
const facts = fc
  .record({
    scopes: fc.array(grant, { maxLength: 4 }),
    ipAllowlist: fc.array(cidr, { maxLength: 3 }),
    expired: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.constant(true)),
    expires: fc.option(time),
    graceEnds: fc.option(time),
  })
  .map(({ expires, graceEnds, ...rest }) =>
    create(KeyFactsSchema, {
      ...rest,
      epoch: 'e',
      revision: 5n,
      secretSlot: graceEnds === null ? SecretSlot.CURRENT : SecretSlot.PREVIOUS,
      ...(expires === null ? {} : { expireTime: timestampFromMs(expires) }),
      ...(graceEnds === null ? {} : { previousSecretExpireTime: timestampFromMs(graceEnds) }),
    }),
  );
const question = fc.record(
  { scope, clientIp: asked, afterMs: fc.nat(10).map((n) => n * 125) },
  { requiredKeys: ['clientIp', 'afterMs'] },
);

const SEED = Number(process.env.SEED ?? 2026);
const KEYS = process.env.LONG ? 20_000 : 1_000;

/** Keys that are made from the seed, with the server's decisions about ten questions each. */
export const MADE = madeVectors(SEED, KEYS);

function madeVectors(seed: number, keys: number): LocalVectors {
  const made = fc.sample(fc.tuple(facts, locked, fc.array(question, { minLength: 10, maxLength: 10 })), {
    seed,
    numRuns: keys,
  });
  return {
    serverTime: LOCAL_VECTORS.serverTime,
    keys: made.map(([ofKey, lockedAddresses, questions], n) => ({
      name: `made ${seed}.${n}`,
      lockedAddresses,
      facts: toJson(KeyFactsSchema, ofKey) as JsonObject,
      questions: questions.map((one) => ({
        ...one,
        decision: decisionOfServer(ofKey, lockedAddresses, one),
      })),
    })),
  };
}

/** The environment with which a library in another language finds the vectors, those made in a file of this folder. */
export function localVectorsIn(folder: string): { readonly APIKEYD_LOCAL_VECTORS: string } {
  const path = join(folder, 'local.json');
  writeFileSync(path, JSON.stringify(MADE));
  return { APIKEYD_LOCAL_VECTORS: `${WRITTEN},${path}` };
}

export const factsIn = ({ facts: json }: LocalKey): KeyFacts => fromJson(KeyFactsSchema, json);

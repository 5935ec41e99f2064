// If this fails, a guard admits or refuses under its lease what the server would decide otherwise.
import { create } from '@bufbuild/protobuf';
import { durationFromMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { describe, expect, it } from 'vitest';
import { LocalKeys } from '../../clients/typescript/src/local-keys.ts';
import { addressIn } from '../../clients/typescript/src/question.ts';
import { Decision, SyncKeysResponseSchema, ValidateKeyResponseSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { LOCAL_DECISIONS } from '../../src/keys/check.ts';
import { TestClock } from '../support/clock.ts';
import {
  decisionOfServer,
  factsFromServer,
  factsIn,
  inputOf,
  LOCAL_VECTORS,
  type LocalKey,
  type LocalQuestion,
  MADE,
  SERVER_TIME,
} from './local-vectors.ts';

const SECRET = `audit_v1_${'s'.repeat(22)}`;

/** Requests bring TypeScript's guard only addresses that it has read itself, and routes only whole scopes. */
const reachesTypeScript = (question: LocalQuestion) => inputOf(question) !== undefined;

/** The decision of the library, its matched scope when it admits, and the use that it reports. */
function decisionOfTypeScript(key: LocalKey, { scope, clientIp = '', afterMs = 0 }: LocalQuestion): string {
  const clock = new TestClock(SERVER_TIME);
  const keys = new LocalKeys(1, clock, () => {});
  const answer = create(SyncKeysResponseSchema, {
    epoch: 'e',
    revision: 5n,
    grantId: 'g',
    lease: durationFromMs(60_000),
    serverTime: timestampFromMs(SERVER_TIME),
    lockedAddresses: [...(key.lockedAddresses ?? [])],
    lockedAddressesComplete: true,
  });
  keys.apply(keys.request(), answer, clock.monotonic(), clock.now());
  const facts = factsIn(key);
  const given = { decision: Decision.VALID, valid: true, keyId: 'k', keyType: KeyType.SERVICE, facts };
  keys.keep(SECRET, create(ValidateKeyResponseSchema, given), keys.generation);
  clock.advance(afterMs);
  return (
    keys.decide(SECRET, scope, clientIp === '' ? '' : (addressIn(clientIp) ?? 'unread'))?.outcome ?? 'ASK'
  );
}

const differing = (keys: readonly LocalKey[], decide: (key: LocalKey, question: LocalQuestion) => string) =>
  keys.flatMap((key) =>
    key.questions
      .map((question) => ({ key: key.name, facts: key.facts, ...question, got: decide(key, question) }))
      .filter(({ decision, got }) => decision !== got),
  );

describe('questions under a lease', () => {
  it('have the decisions of the server’s own rules, by facts that it would tell', () => {
    for (const key of LOCAL_VECTORS.keys) {
      const facts = factsIn(key);
      expect(factsFromServer(facts), key.name).toEqual(facts);
    }
    const decide = (key: LocalKey, question: LocalQuestion) =>
      decisionOfServer(factsIn(key), key.lockedAddresses ?? [], question);
    expect(differing(LOCAL_VECTORS.keys, decide)).toEqual([]);
  });

  it.each([
    ['written', LOCAL_VECTORS],
    ['made', MADE],
  ])('are decided alike by the library in TypeScript: those %s', (_, { keys }) => {
    const reaching = keys.map((key) => ({ ...key, questions: key.questions.filter(reachesTypeScript) }));
    expect(differing(reaching, decisionOfTypeScript)).toEqual([]);
  });

  it('that are made meet each decision in each hundred', () => {
    const decisions = MADE.keys.flatMap(({ questions }) => questions.map(({ decision }) => decision));
    for (const decision of [...LOCAL_DECISIONS, 'ASK']) {
      const times = decisions.filter((one) => one === decision).length;
      expect(times * 100, decision).toBeGreaterThanOrEqual(decisions.length);
    }
  });

  it('that are made are facts as the server tells them', () => {
    for (const key of MADE.keys) expect(factsFromServer(factsIn(key)), key.name).toEqual(factsIn(key));
  });
});

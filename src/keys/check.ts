import type { FoundSlot, Key } from './key.ts';
import { isExpired } from './key.ts';
import { matchingGrant } from './scope.ts';

/** Every outcome of a validation, in the order of precedence, VALID last. */
export const DECISIONS = [
  'LOCKED_OUT',
  'MALFORMED',
  'NOT_FOUND',
  'REVOKED',
  'DISABLED',
  'EXPIRED',
  'ROTATED',
  'IP_NOT_ALLOWED',
  'INSUFFICIENT_SCOPE',
  'RATE_LIMITED',
  'VALID',
] as const;
export type Decision = (typeof DECISIONS)[number];
export type Denial = Exclude<Decision, 'VALID'>;

/** The decisions that a guard makes by itself. */
export const LOCAL_DECISIONS: readonly Decision[] = [
  'EXPIRED',
  'ROTATED',
  'IP_NOT_ALLOWED',
  'INSUFFICIENT_SCOPE',
  'VALID',
];

const WORKING: ReadonlySet<Decision> = new Set([
  'IP_NOT_ALLOWED',
  'INSUFFICIENT_SCOPE',
  'RATE_LIMITED',
  'VALID',
]);

/** The facts that a known key is checked against. */
export interface CheckContext {
  readonly requiredScope: string | undefined;
  readonly clientIp: string | undefined;
  /** Milliseconds since 1970, read for this call. */
  readonly now: number;
}

type Rule = (key: Key, slot: FoundSlot, question: CheckContext) => boolean;

// In the order of precedence; the quota comes after all of them, since only it consumes something.
const RULES: readonly (readonly [Denial, Rule])[] = [
  ['REVOKED', (key) => key.revokeTime !== undefined],
  ['DISABLED', (key) => key.disabled],
  ['EXPIRED', (key, _slot, { now }) => isExpired(key, now)],
  ['ROTATED', (key, slot, { now }) => slot === 'RETIRED' || (slot === 'PREVIOUS' && graceIsOver(key, now))],
  ['IP_NOT_ALLOWED', (key, _slot, { clientIp }) => !key.ipAllowlist.allows(clientIp)],
  [
    'INSUFFICIENT_SCOPE',
    (key, _slot, { requiredScope }) =>
      requiredScope !== undefined && matchingGrant(key.scopes, requiredScope) === undefined,
  ],
];

/** Whether the decision shows that the secret is one of the key's and works, whatever else is denied. */
export function isWorkingSecret(decision: Decision): boolean {
  return WORKING.has(decision);
}

/** The first reason to deny, or undefined. Pure. */
export function firstDenial(key: Key, slot: FoundSlot, question: CheckContext): Denial | undefined {
  return RULES.find(([, fails]) => fails(key, slot, question))?.[0];
}

/** Every reason to deny, in order. Pure. */
export function allDenials(key: Key, slot: FoundSlot, question: CheckContext): Denial[] {
  return RULES.filter(([, fails]) => fails(key, slot, question)).map(([denial]) => denial);
}

function graceIsOver(key: Key, now: number): boolean {
  return key.rotation === undefined || now >= key.rotation.expireTime;
}

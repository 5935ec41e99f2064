// If this fails, the protocol of the lease has a hole: some order of steps lets a revoked key be VALID after RevokeKey.
import { describe, expect, it } from 'vitest';

/**
 * A model of docs/design/lease.md A to E for one revoker and one process that caches, explored over every interleaving. Time
 * is what the rules say of it and no more: a lease of `LEASE` ticks from the start of the last poll, a wait of more than
 * that. The process may stall between any two of its steps, which is what interleaving them with ticks means.
 */
const LEASE = 2;
const WAIT = 3;
const END = 12;

interface Rules {
  /** The number is given with the write, in one step; broken: a number first, the write later. */
  readonly publishAtOnce: boolean;
  /** The registry is read after the write and the publication. */
  readonly registryLast: boolean;
  /** A poll renews its registration before it reads the revision. */
  readonly renewFirst: boolean;
  /** A reply is kept only if no poll was applied since it was sent. */
  readonly generations: boolean;
  /** A late call does not join a read that was sent before a poll. */
  readonly joinChecked: boolean;
  /** The lease runs from the start of a poll, not from its end. */
  readonly leaseFromStart: boolean;
}

const RIGHT: Rules = {
  publishAtOnce: true,
  registryLast: true,
  renewFirst: true,
  generations: true,
  joinChecked: true,
  leaseFromStart: true,
};

interface State {
  readonly time: number;
  /** The store. */
  readonly revoked: boolean;
  readonly revision: number;
  /** Revisions whose change is visible to a poll. */
  readonly visible: number;
  readonly registered: boolean;
  /** The registration counter, and for how long it has not changed: after a bound the registration is removed. */
  readonly still: number;
  /** The revoker: its step, the registry it read, when its wait is over, and whether it has answered. */
  readonly revoker: 0 | 1 | 2 | 3 | 4;
  readonly waitUntil: number;
  /** The caching process: its record, cursor, generation and lease. */
  readonly record: 'none' | 'good' | 'revoked';
  readonly cursor: number;
  readonly generation: number;
  readonly leaseStart: number;
  /** A running poll: its step, its start, and the state that it has read. */
  readonly poll: 0 | 1 | 2;
  readonly pollStart: number;
  readonly pollRead: number;
  /** A running read: the generation in which it was sent, and the response of the store. */
  readonly read: 'none' | 'good' | 'revoked';
  readonly readGeneration: number;
}

const START: State = {
  time: 0,
  revoked: false,
  revision: 0,
  visible: 0,
  registered: false,
  still: 0,
  revoker: 0,
  waitUntil: 0,
  record: 'none',
  cursor: 0,
  generation: 0,
  leaseStart: Number.NEGATIVE_INFINITY,
  poll: 0,
  pollStart: 0,
  pollRead: 0,
  read: 'none',
  readGeneration: 0,
};

const GONE_AFTER = 4 * LEASE;

/** Whatever may happen next. `wrong` when a call that starts now is answered VALID although RevokeKey has returned. */
function* nextOf(s: State, rules: Rules): Generator<State | 'wrong'> {
  const holds = s.time - s.leaseStart < LEASE;
  const returned = s.revoker === 4;
  if (s.time < END) {
    const still = s.registered ? s.still + 1 : 0;
    // Somebody saw the counter stand still for long: the entry goes.
    const gone = still > GONE_AFTER;
    yield { ...s, time: s.time + 1, still: gone ? 0 : still, registered: s.registered && !gone };
  }
  yield* revokerOf(s, rules);
  yield* pollOf(s, rules);
  // A call starts: from the record under the lease, joined to a read under way, or by a read of its own.
  if (holds && s.record === 'good' && returned) yield 'wrong';
  const joinable = s.read !== 'none' && (!rules.joinChecked || (holds && s.readGeneration === s.generation));
  if (joinable && s.read === 'good' && returned) yield 'wrong';
  if (s.read === 'none') yield { ...s, read: s.revoked ? 'revoked' : 'good', readGeneration: s.generation };
  else {
    const keeps = holds && (!rules.generations || s.readGeneration === s.generation);
    yield { ...s, read: 'none', record: keeps ? s.read : s.record };
  }
}

/** Write, publish, read the registry and wait, answer. */
function* revokerOf(s: State, rules: Rules): Generator<State> {
  const waits = { ...s, waitUntil: s.registered ? s.time + WAIT : s.time };
  if (rules.registryLast) {
    if (s.revoker === 0)
      yield rules.publishAtOnce
        ? { ...s, revoker: 1, revoked: true }
        : { ...s, revoker: 1, revision: 1, visible: 1 };
    else if (s.revoker === 1)
      yield rules.publishAtOnce
        ? { ...s, revoker: 2, revision: 1, visible: 1 }
        : { ...s, revoker: 2, revoked: true };
    else if (s.revoker === 2) yield { ...waits, revoker: 3 };
  } else {
    if (s.revoker === 0) yield { ...waits, revoker: 1 };
    else if (s.revoker === 1) yield { ...s, revoker: 2, revoked: true };
    else if (s.revoker === 2) yield { ...s, revoker: 3, revision: 1, visible: 1 };
  }
  if (s.revoker === 3 && s.time >= s.waitUntil) yield { ...s, revoker: 4 };
}

/** Renew the registration, read the revision, apply and take the lease. */
function* pollOf(s: State, rules: Rules): Generator<State> {
  const renewed = { registered: true, still: 0 };
  const readIt = { pollRead: s.visible };
  if (s.poll === 0) yield { ...s, poll: 1, pollStart: s.time, ...(rules.renewFirst ? renewed : readIt) };
  else if (s.poll === 1) yield { ...s, poll: 2, ...(rules.renewFirst ? readIt : renewed) };
  else {
    const changed = s.pollRead > s.cursor;
    yield {
      ...s,
      poll: 0,
      cursor: s.pollRead,
      generation: s.generation + 1,
      record: changed ? 'none' : s.record,
      leaseStart: rules.leaseFromStart ? s.pollStart : s.time,
    };
  }
}

/** Generations matter only by whether a read was sent in the present one. */
function keyOf(s: State): string {
  const { generation, readGeneration, ...rest } = s;
  const lease = Math.min(s.time - s.leaseStart, LEASE);
  return JSON.stringify([rest, lease, generation === readGeneration]);
}

function explore(rules: Rules): { states: number; wrong: boolean } {
  const seen = new Set<string>([keyOf(START)]);
  const open: State[] = [START];
  for (let s = open.pop(); s !== undefined; s = open.pop()) {
    for (const next of nextOf(s, rules)) {
      if (next === 'wrong') return { states: seen.size, wrong: true };
      const key = keyOf(next);
      if (seen.has(key)) continue;
      seen.add(key);
      open.push(next);
    }
  }
  return { states: seen.size, wrong: false };
}

describe('the lease, every interleaving', () => {
  it('no call that starts after RevokeKey has returned is VALID', () => {
    const { states, wrong } = explore(RIGHT);
    expect(wrong).toBe(false);
    // Canary: a model that goes nowhere finds nothing.
    expect(states).toBeGreaterThan(10_000);
  });

  it.each([
    ['a revision that is visible before its change', { publishAtOnce: false }],
    ['a registry that is read before the write', { registryLast: false }],
    ['a poll that reads before it renews', { renewFirst: false }],
    ['a reply that is kept although a poll came between', { generations: false }],
    ['a late call that joins an early read', { joinChecked: false }],
    ['a lease that runs from the end of a poll', { leaseFromStart: false }],
  ])('finds the hole in %s', (_name, broken) => {
    expect(explore({ ...RIGHT, ...broken }).wrong).toBe(true);
  });
});

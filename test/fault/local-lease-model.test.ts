// If this fails, the protocol of guards has a hole: some order of steps lets a guard answer VALID by itself after RevokeKey.
import { describe, expect, it } from 'vitest';

/**
 * Models of docs/design/local-validation.md, explored over every interleaving, as lease-model.test.ts does for processes. One
 * guard, one key, one revocation. A lease lasts LEASE ticks, and a wait for it WAIT, which is more.
 */
const LEASE = 2;
const WAIT = 3;

type Explored = { readonly states: number; readonly wrong: boolean };

function explore<S>(start: S, nextOf: (state: S) => Iterable<S | 'wrong'>): Explored {
  const seen = new Set<string>([JSON.stringify(start)]);
  const open: S[] = [start];
  // In the order of their steps: a hole is found by its shortest way.
  for (const s of open) {
    for (const next of nextOf(s)) {
      if (next === 'wrong') return { states: seen.size, wrong: true };
      const key = JSON.stringify(next);
      if (seen.has(key)) continue;
      seen.add(key);
      open.push(next);
    }
  }
  return { states: seen.size, wrong: false };
}

/** What the guard holds, and its calls under way. */
interface Guard {
  readonly fact: boolean;
  /** How much longer the lease lasts. */
  readonly lease: number;
  readonly cursor: 0 | 1;
  /** The last answer that the guard has applied had the change. */
  readonly applied: 0 | 1;
  /** A SyncKeys: sent, then answered with a revision and a lease. */
  readonly sync: 'none' | 'sent' | 'read' | 'answered';
  readonly syncTo: 0 | 1;
  /** Ticks since the call was sent. */
  readonly syncAge: number;
  readonly syncRevision: 0 | 1;
  readonly syncLease: number;
  /** A ValidateKey: sent, then answered; `late` when a sync was applied since it was sent. */
  readonly fill: 'none' | 'sent' | 'good' | 'denied';
  readonly fillLate: boolean;
}

const GUARD: Guard = {
  fact: false,
  lease: 0,
  cursor: 0,
  applied: 0,
  sync: 'none',
  syncTo: 0,
  syncAge: 0,
  syncRevision: 0,
  syncLease: 0,
  fill: 'none',
  fillLate: false,
};

interface GuardRules {
  /** The lease runs from the start of the call; broken: from the arrival of its answer. */
  readonly leaseFromStart: boolean;
  /** An answer with facts is kept only if no sync was applied since the question was sent. */
  readonly fillChecked: boolean;
}
const GUARD_RIGHT: GuardRules = { leaseFromStart: true, fillChecked: true };

/** Of a call that is over nothing is left that tells states apart. */
const NO_SYNC = { sync: 'none', syncTo: 0, syncAge: 0, syncRevision: 0, syncLease: 0 } as const;

const less = (left: number) => Math.max(0, left - 1);
/** The guard a tick later. An older call gives no lease. */
const older = (g: Guard): Guard => ({
  ...g,
  lease: less(g.lease),
  syncAge: g.sync === 'none' ? 0 : Math.min(LEASE, g.syncAge + 1),
});

/** The steps of the guard that need no server: an answer arrives or is lost. */
function* guardSteps(g: Guard, rules: GuardRules): Generator<Guard> {
  if (g.sync === 'answered') {
    const later = g.syncRevision > g.cursor;
    const age = rules.leaseFromStart ? g.syncAge : 0;
    yield {
      ...g,
      ...NO_SYNC,
      cursor: later ? g.syncRevision : g.cursor,
      applied: g.syncRevision,
      fact: g.fact && !later,
      lease: Math.max(0, g.syncLease - age),
      fillLate: g.fill !== 'none',
    };
    yield { ...g, ...NO_SYNC };
  }
  if (g.fill === 'good' || g.fill === 'denied') {
    const keeps = g.fill === 'good' && g.lease > 0 && (!g.fillLate || !rules.fillChecked);
    yield { ...g, fill: 'none', fillLate: false, fact: g.fact || keeps };
  }
  if (g.fill === 'none' && !g.fact) yield { ...g, fill: 'sent', fillLate: false };
}

describe('the embedded server and a guard, every interleaving', () => {
  interface Rules extends GuardRules {
    readonly waits: boolean;
    /** Only a request that repeats the id of an answer acknowledges it; broken: the answer itself. */
    readonly echoed: boolean;
    /** After a start, changes wait for leases of the process before. */
    readonly startRule: boolean;
    /** Changes and lease of an answer are of one turn. */
    readonly oneTurn: boolean;
  }
  const RIGHT: Rules = { ...GUARD_RIGHT, waits: true, echoed: true, startRule: true, oneTurn: true };

  interface State {
    readonly revoked: boolean;
    readonly up: boolean;
    /** Leases of a process before this one may last so long. */
    readonly quiet: number;
    /** This process's note of leases that were lent without the change, and whether the guard has acknowledged it. */
    readonly lent: number;
    readonly acknowledged: boolean;
    readonly crashes: 0 | 1;
    readonly revoker: 'none' | 'published' | 'returned';
    readonly guard: Guard;
  }
  const START: State = {
    revoked: false,
    up: true,
    quiet: 0,
    lent: 0,
    acknowledged: false,
    crashes: 0,
    revoker: 'none',
    guard: GUARD,
  };

  function* nextOf(s: State, rules: Rules): Generator<State | 'wrong'> {
    const { guard: g } = s;
    if (s.revoker === 'returned' && g.fact && g.lease > 0) yield 'wrong';
    yield { ...s, quiet: less(s.quiet), lent: less(s.lent), guard: older(g) };
    for (const guard of guardSteps(g, rules)) yield { ...s, guard };
    if (g.sync === 'none') yield { ...s, guard: { ...g, sync: 'sent', syncAge: 0 } };
    if (!s.up) {
      yield {
        ...s,
        up: true,
        lent: 0,
        acknowledged: false,
        quiet: rules.startRule ? WAIT : 0,
      };
      return;
    }
    // A crash ends the call of the revoker, who repeats it, and forgets who holds leases.
    if (s.crashes === 0)
      yield { ...s, up: false, crashes: 1, revoker: s.revoker === 'published' ? 'none' : s.revoker };
    if (g.fill === 'sent') yield { ...s, guard: { ...g, fill: s.revoked ? 'denied' : 'good' } };
    yield* answers(s, rules);
    if (s.revoker === 'none') yield { ...s, revoked: true, revoker: 'published' };
    const safe = s.acknowledged || s.lent === 0;
    if (s.revoker === 'published' && (!rules.waits || (safe && s.quiet === 0)))
      yield { ...s, revoker: 'returned' };
  }

  function* answers(s: State, rules: Rules): Generator<State> {
    const { guard: g } = s;
    const revision = s.revoked ? 1 : 0;
    const acknowledged = s.acknowledged || (rules.echoed ? g.applied === 1 : revision === 1);
    const lend = (syncRevision: 0 | 1): State => ({
      ...s,
      acknowledged,
      lent: syncRevision === 0 ? WAIT : s.lent,
      guard: { ...g, sync: 'answered', syncRevision, syncLease: LEASE },
    });
    if (g.sync === 'sent')
      yield rules.oneTurn ? lend(revision) : { ...s, guard: { ...g, sync: 'read', syncRevision: revision } };
    // The lease is noted as if the answer had the changes of now.
    if (g.sync === 'read') yield { ...lend(g.syncRevision), lent: s.revoked ? s.lent : WAIT };
  }

  it('no local decision is VALID after RevokeKey has returned', () => {
    const { states, wrong } = explore(START, (s) => nextOf(s, RIGHT));
    expect(wrong).toBe(false);
    expect(states).toBeGreaterThan(1_000);
  });

  it.each([
    ['no wait', { waits: false }],
    ['an answer that counts as acknowledged when it is sent', { echoed: false }],
    ['a start that knows nothing of leases before it', { startRule: false }],
    ['a lease that is lent after the changes were read', { oneTurn: false }],
    ['a lease that runs from the arrival of the answer', { leaseFromStart: false }],
    ['facts that were asked for before a sync', { fillChecked: false }],
  ])('finds the hole in %s', (_name, broken) => {
    expect(explore(START, (s) => nextOf(s, { ...RIGHT, ...broken })).wrong).toBe(true);
  });
});

describe('two servers on one database and a guard, every interleaving', () => {
  // Shorter than above, since there are more states.
  const [LEASE, WAIT] = [1, 2];
  interface Rules extends GuardRules {
    /** The process that revokes counts its own lease; broken: never, or only while a lease that it lent lasts. */
    readonly ownCounted: 'always' | 'while lent' | 'never';
    /** The changes and the lease of an answer are of the same poll. */
    readonly onePoll: boolean;
    /** Not a rule: whether the process that revokes lends leases, too. */
    readonly revokerLends: boolean;
    /** A process that stops stays registered until its last grant is over. */
    readonly staysRegistered: boolean;
  }
  const RIGHT: Rules = {
    ...GUARD_RIGHT,
    ownCounted: 'always',
    onePoll: true,
    staysRegistered: true,
    revokerLends: true,
  };

  interface Server {
    readonly up: boolean;
    readonly registered: boolean;
    readonly applied: 0 | 1;
    /** How much longer: the own lease, the lease that a poll under way will give, and those lent to the guard. */
    readonly lease: number;
    readonly poll: number | 'none';
    readonly lent: number;
  }
  const SERVER: Server = {
    up: true,
    registered: false,
    applied: 0,
    lease: 0,
    poll: 'none',
    lent: 0,
  };

  interface State {
    readonly revoked: boolean;
    readonly servers: readonly [Server, Server];
    /** Changes are made on the first server. */
    readonly revoker: 'none' | 'published' | 'waiting' | 'returned';
    readonly wait: number;
    readonly guard: Guard;
  }
  const START: State = {
    revoked: false,
    servers: [SERVER, SERVER],
    revoker: 'none',
    wait: 0,
    guard: GUARD,
  };

  const withServer = (s: State, i: 0 | 1, change: Partial<Server>): State => {
    const servers: [Server, Server] = [...s.servers];
    servers[i] = { ...servers[i], ...change };
    return { ...s, servers };
  };

  const ticked = (s: State): State => {
    const tick = (server: Server): Server => ({
      ...server,
      lease: less(server.lease),
      poll: server.poll === 'none' ? 'none' : less(server.poll),
      lent: less(server.lent),
    });
    return {
      ...s,
      servers: [tick(s.servers[0]), tick(s.servers[1])],
      wait: less(s.wait),
      guard: older(s.guard),
    };
  };

  function* nextOf(s: State, rules: Rules): Generator<State | 'wrong'> {
    const { guard: g } = s;
    if (s.revoker === 'returned' && g.fact && g.lease > 0) yield 'wrong';
    yield ticked(s);
    // Nothing is acknowledged here: states need not differ by it.
    for (const guard of guardSteps(g, rules)) yield { ...s, guard: { ...guard, applied: 0 } };
    for (const i of [0, 1] as const) {
      if (g.sync === 'none' && s.servers[i].up && (i === 1 || rules.revokerLends))
        yield { ...s, guard: { ...g, sync: 'sent', syncTo: i, syncAge: 0 } };
      yield* serverSteps(s, i, rules);
    }
    yield* revokerSteps(s, rules);
  }

  function* serverSteps(s: State, i: 0 | 1, rules: Rules): Generator<State> {
    const { guard: g } = s;
    const server = s.servers[i];
    // A clean stop: no answers any more, and the registration goes.
    if (i === 1 && server.up && s.servers[0].up) yield withServer(s, i, { up: false });
    if (!server.up && server.registered && (!rules.staysRegistered || server.lent === 0))
      yield withServer(s, i, { registered: false });
    if (!server.up) return;
    if (server.poll === 'none') yield withServer(s, i, { poll: LEASE, registered: true });
    else yield withServer(s, i, { poll: 'none', applied: s.revoked ? 1 : 0, lease: server.poll });
    // Facts from the store, or from a cached record that no applied poll has dropped; never older than the cursor.
    if (g.fill === 'sent' && server.applied >= g.cursor) {
      const cached = server.applied === 0 && server.lease > 0 && !(i === 0 && s.revoker === 'returned');
      if (!s.revoked || cached) yield { ...s, guard: { ...g, fill: 'good' } };
      if (s.revoked) yield { ...s, guard: { ...g, fill: 'denied' } };
    }
    if (g.syncTo !== i) return;
    const left = server.lease;
    const lend = (syncRevision: 0 | 1): State => {
      const lent = left > 0 ? { lent: WAIT } : {};
      return { ...withServer(s, i, lent), guard: { ...g, sync: 'answered', syncRevision, syncLease: left } };
    };
    if (g.sync === 'sent')
      yield rules.onePoll
        ? lend(server.applied)
        : { ...s, guard: { ...g, sync: 'read', syncRevision: server.applied } };
    if (g.sync === 'read') yield lend(g.syncRevision);
  }

  function* revokerSteps(s: State, rules: Rules): Generator<State> {
    const [own, other] = s.servers;
    if (s.revoker === 'none') yield { ...s, revoked: true, revoker: 'published' };
    if (s.revoker === 'published') {
      const lends =
        rules.revokerLends &&
        (rules.ownCounted === 'always' || (rules.ownCounted === 'while lent' && own.lent > 0));
      yield other.registered || lends
        ? { ...s, revoker: 'waiting', wait: WAIT }
        : { ...s, revoker: 'returned' };
    }
    // Its own calls see its own change at once.
    if (s.revoker === 'waiting' && s.wait === 0) yield { ...s, revoker: 'returned' };
  }

  it.each([true, false])(
    'no local decision is VALID after RevokeKey has returned, its process lends: %s',
    (revokerLends) => {
      const { states, wrong } = explore(START, (s) => nextOf(s, { ...RIGHT, revokerLends }));
      expect(wrong).toBe(false);
      expect(states).toBeGreaterThan(1_000);
    },
    120_000,
  );

  it.each([
    ['a process that does not count itself', { ownCounted: 'never' as const }],
    ['a process that counts itself only while its leases last', { ownCounted: 'while lent' as const }],
    ['changes of one poll with the lease of a later one', { onePoll: false }],
    ['a process that leaves the registry at once', { staysRegistered: false, revokerLends: false }],
    ['a lease that runs from the arrival of the answer', { leaseFromStart: false }],
    ['facts that were asked for before a sync', { fillChecked: false }],
  ])(
    'finds the hole in %s',
    (_name, broken) => {
      expect(explore(START, (s) => nextOf(s, { ...RIGHT, ...broken })).wrong).toBe(true);
    },
    120_000,
  );
});

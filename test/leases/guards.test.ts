// If this fails, RevokeKey returns while a guard still answers VALID, or waits longer than any lease lasts.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GrantTokens } from '../../src/leases/grant-token.ts';
import { Guards } from '../../src/leases/guards.ts';
import { TestClock } from '../support/clock.ts';

const [A, B] = ['a', 'b'].map((guardId) => ({ callerKeyId: 'key', guardId })) as [Name, Name];
type Name = { callerKeyId: string; guardId: string };

/** Guards whose waits end when the test's clock has gone on so far. */
function withClock(lentBeforeUntil?: number) {
  const clock = new TestClock();
  const waits: { at: number; end: () => void }[] = [];
  const guards = new Guards(clock, lentBeforeUntil, (ms) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    waits.push({ at: clock.monotonic() + ms, end: resolve });
    return promise;
  });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  return {
    clock,
    guards,
    turn,
    async advance(ms: number) {
      clock.advance(ms);
      for (const wait of waits) if (wait.at <= clock.monotonic()) wait.end();
      await turn();
    },
    /** Whether a wait for the revision is over. */
    watched(revision: number) {
      const state = { over: false };
      void guards.waitFor(revision).then(() => {
        state.over = true;
      });
      return state;
    },
  };
}

describe('a change', () => {
  it('waits for nobody when no lease is lent, and takes no time', async () => {
    const { guards, turn, watched } = withClock();
    guards.met(A);
    const wait = watched(5);
    await turn();
    expect(wait.over).toBe(true);
  });

  it('waits for each guard until it repeats the id of an answer that had the change', async () => {
    const { guards, turn, watched } = withClock();
    guards.lend(A, 'a1', 4, 1_000);
    guards.lend(B, 'b1', 4, 1_000);
    const wait = watched(5);
    guards.lend(A, 'a2', 5, 1_000);
    guards.acknowledge(A, 'a1');
    guards.acknowledge(A, 'of another');
    guards.acknowledge(B, 'a2');
    await turn();
    expect(wait.over, 'sent, but not acknowledged').toBe(false);
    guards.acknowledge(A, 'a2');
    await turn();
    expect(wait.over).toBe(false);
    guards.lend(B, 'b2', 6, 1_000);
    guards.acknowledge(B, 'b2');
    await turn();
    expect(wait.over).toBe(true);
  });

  it('waits a fifth and 20 ms longer than the lease of a guard that says nothing', async () => {
    const { guards, advance, watched } = withClock();
    guards.lend(A, 'a1', 4, 1_000);
    const wait = watched(5);
    await advance(1_219);
    expect(wait.over).toBe(false);
    await advance(1);
    expect(wait.over).toBe(true);
  });

  it('waits for the earlier lease when the answer with the change was perhaps lost', async () => {
    const { guards, advance, watched } = withClock();
    guards.lend(A, 'a1', 4, 1_000);
    const wait = watched(5);
    await advance(600);
    guards.lend(A, 'a2', 5, 1_000);
    await advance(619);
    expect(wait.over).toBe(false);
    await advance(1);
    expect(wait.over).toBe(true);
  });

  it('waits for a lease that was lent without it while it waited', async () => {
    const { guards, advance, watched } = withClock();
    guards.lend(A, 'a1', 4, 1_000);
    const wait = watched(5);
    await advance(1_000);
    guards.lend(A, 'a2', 4, 1_000);
    await advance(300);
    expect(wait.over).toBe(false);
    await advance(920);
    expect(wait.over).toBe(true);
  });

  it('waits for the guard that says nothing alone, when one with a later lease has acknowledged', async () => {
    const { guards, advance, watched } = withClock();
    guards.lend(A, 'a1', 4, 1_000);
    await advance(600);
    guards.lend(B, 'b1', 4, 1_000);
    guards.lend(B, 'b2', 5, 1_000);
    const wait = watched(5);
    guards.acknowledge(B, 'b2');
    await advance(619);
    expect(wait.over).toBe(false);
    await advance(1);
    expect(wait.over).toBe(true);
  });

  it('does not wait for a guard that gave its lease back', async () => {
    const { guards, turn, watched } = withClock();
    guards.lend(A, 'a1', 4, 1_000);
    const wait = watched(5);
    guards.leave(A);
    await turn();
    expect(wait.over).toBe(true);
  });

  it('waits after a start for leases that the process before has lent', async () => {
    const { clock, advance, watched } = withClock(new TestClock().monotonic() + 1_220);
    const wait = watched(5);
    await advance(1_219);
    expect(wait.over).toBe(false);
    await advance(1);
    expect(wait.over).toBe(true);
    expect(clock.monotonic()).toBe(2_220);
  });

  it('is not hurried by a wall clock that is set forward', async () => {
    const { clock, guards, turn, advance, watched } = withClock();
    guards.lend(A, 'a1', 4, 1_000);
    const wait = watched(5);
    clock.step(3_600_000);
    await advance(0);
    await turn();
    expect(wait.over).toBe(false);
  });
});

/** What guards and changes do, and after each step whether a change may be over: told anew from all that was lent. */
class Story {
  readonly #lent = new Map<string, { id: string; revision: number; overAt: number }[]>();
  readonly #acknowledged = new Map<string, number>();
  readonly #made = withClock();
  readonly waits: { readonly revision: number; readonly state: { over: boolean }; over: boolean }[] = [];
  #revision = 5;
  #ids = 0;

  readonly steps = {
    lends: (name: Name, behind: number, leaseMs: number) => {
      const revision = this.#revision - behind;
      const id = String(this.#ids++);
      this.#made.guards.lend(name, id, revision, leaseMs);
      const overAt = this.#made.clock.monotonic() + leaseMs * 1.2 + 20;
      this.#of(name).push({ id, revision, overAt });
    },
    acknowledges: (name: Name, which: number) => {
      const lives = this.#of(name).filter(({ overAt }) => overAt > this.#made.clock.monotonic());
      const grant = lives[which % lives.length];
      if (grant === undefined) return;
      this.#made.guards.acknowledge(name, grant.id);
      const before = this.#acknowledged.get(name.guardId) ?? 0;
      this.#acknowledged.set(name.guardId, Math.max(before, grant.revision));
    },
    leaves: (name: Name) => {
      this.#made.guards.leave(name);
      this.#lent.delete(name.guardId);
      this.#acknowledged.delete(name.guardId);
    },
    changes: () => {
      const revision = ++this.#revision;
      this.waits.push({ revision, state: this.#made.watched(revision), over: false });
    },
    passes: (_: Name, tens: number, ms: number) => this.#made.advance(tens * 10 + ms),
  };

  #of({ guardId }: Name) {
    const lent = this.#lent.get(guardId) ?? [];
    this.#lent.set(guardId, lent);
    return lent;
  }

  async settle(): Promise<void> {
    await this.#made.turn();
    const now = this.#made.clock.monotonic();
    for (const wait of this.waits)
      wait.over ||= [...this.#lent].every(
        ([id, lent]) =>
          (this.#acknowledged.get(id) ?? 0) >= wait.revision ||
          lent.every(({ revision, overAt }) => revision >= wait.revision || overAt <= now),
      );
  }
}

describe('changes among guards', () => {
  const step = fc.record({
    does: fc.constantFrom('lends', 'lends', 'acknowledges', 'leaves', 'changes', 'passes'),
    name: fc.constantFrom(...['a', 'b', 'c'].map((guardId) => ({ callerKeyId: 'key', guardId }))),
    first: fc.nat(3),
    ms: fc.constantFrom(0, 100, 500, 1_000),
  });

  it('are over as soon as no guard can decide without them, and not before', async () => {
    let waited = 0;
    const holds = fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), async (steps) => {
      const story = new Story();
      for (const { does, name, first, ms } of steps) {
        await story.steps[does as keyof Story['steps']](name, first, ms);
        await story.settle();
        expect(story.waits.map(({ state }) => state.over)).toEqual(story.waits.map(({ over }) => over));
        waited += story.waits.filter(({ over }) => !over).length;
      }
    });
    await fc.assert(holds, { seed: 41, numRuns: process.env.LONG ? 100_000 : 1_000 });
    expect(waited).toBeGreaterThan(1_000);
  }, 600_000);
});

describe('the calls of a guard', () => {
  it('are counted in one event a minute', async () => {
    const { clock, guards } = withClock();
    expect(guards.met(A)).toMatchObject({ count: 1, firstTime: clock.now() });
    expect(guards.met(A)).toBeUndefined();
    const since = clock.now();
    clock.advance(59_999);
    expect(guards.met(A)).toBeUndefined();
    clock.advance(1);
    expect(guards.met(A)).toEqual({ ...A, count: 3, firstTime: since });
  });

  it('end with a lapse only where a lease was lent and not given back', async () => {
    const { clock, guards } = withClock();
    guards.met(A);
    guards.met(A);
    guards.lend(A, 'a1', 4, 1_000);
    guards.lend(B, 'b1', 4, 2_000);
    clock.advance(1_219);
    expect(guards.lapsed()).toEqual([]);
    clock.advance(1);
    expect(guards.lapsed()).toMatchObject([{ guardId: 'a', syncs: { count: 1 } }]);
    guards.leave(B);
    clock.advance(10_000);
    expect(guards.lapsed()).toEqual([]);
    expect(guards.count).toBe(0);
  });

  it('are forgotten a minute after a guard that was lent no lease has asked last', () => {
    const { clock, guards } = withClock();
    guards.met(A);
    clock.advance(59_999);
    guards.met(B);
    expect(guards.lapsed()).toEqual([]);
    clock.advance(1);
    expect(guards.lapsed()).toMatchObject([{ guardId: 'a', held: false }]);
    expect(guards.count).toBe(1);
  });

  it('are refused beyond ten thousand guards, and five thousand of one calling key', () => {
    const { guards } = withClock();
    const meet = (callerKeyId: string, n: number) => guards.met({ callerKeyId, guardId: String(n) });
    for (let i = 0; i < 5_000; i++) meet('wild', i);
    expect(() => meet('wild', 5_000)).toThrow('too many guards');
    expect(() => meet('wild', 7)).not.toThrow();
    guards.leave({ callerKeyId: 'wild', guardId: '7' });
    expect(() => meet('wild', 5_000)).not.toThrow();
    for (let i = 0; i < 5_000; i++) meet(`another ${i % 2}`, i);
    expect(() => guards.met(A)).toThrow('too many guards');
  });
});

describe('the id of a grant', () => {
  const tokens = new GrantTokens('secret', () => 'epoch');
  const grant = { time: 1_700_000_000_123, leaseMs: 750 };

  it('tells any process of the store what was lent to whom', () => {
    const other = new GrantTokens('secret', () => 'epoch');
    expect(other.open(tokens.seal(grant, A), A)).toEqual(grant);
    expect(tokens.seal(grant, A)).not.toBe(tokens.seal(grant, A));
  });

  it('is worth nothing to another guard, in another epoch, of another store, or changed', () => {
    const token = tokens.seal(grant, A);
    expect(tokens.open(token, B)).toBeUndefined();
    expect(tokens.open(token, { ...A, callerKeyId: 'other' })).toBeUndefined();
    expect(new GrantTokens('secret', () => 'later').open(token, A)).toBeUndefined();
    expect(new GrantTokens('other', () => 'epoch').open(token, A)).toBeUndefined();
    const bytes = Buffer.from(token, 'base64url');
    for (let i = 0; i < bytes.length; i++) {
      const changed = Buffer.from(bytes);
      changed[i] = (changed[i] ?? 0) ^ 1;
      expect(tokens.open(changed.toString('base64url'), A), `byte ${i}`).toBeUndefined();
    }
    expect(tokens.open('', A)).toBeUndefined();
    expect(tokens.open('no token', A)).toBeUndefined();
  });
});

import { setTimeout as delay } from 'node:timers/promises';
import { ApiError } from '../keys/errors.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { GuardName } from './grant-token.ts';

const MAX_GUARDS = 10_000;
/** Of one calling key, so that a backend gone wild leaves places to the others. */
const MAX_OF_KEY = MAX_GUARDS / 2;
/** A holder's clock may run a fifth slower than this one. */
const DRIFT = 1.2;
const MARGIN_MS = 20;

interface Lent {
  readonly id: string;
  readonly revision: number;
  /** Monotonic: from here on the guard's lease has certainly lapsed. */
  readonly overAt: number;
}

interface Guard extends GuardName {
  /** The guard has applied every change up to here. */
  acknowledged: number;
  lent: Lent[];
  /** Calls of SyncKeys since the last event about them. */
  syncs: number;
  syncsSince: number;
  eventAt: number;
  metAt: number;
}

/** A change that waits, and until when each guard may decide without it. */
interface Waiting {
  readonly revision: number;
  readonly unsafe: Map<Guard, number>;
  readonly until: number;
  readonly wake: () => void;
}

/** The calls of SyncKeys that one event stands for. */
export interface CountedSyncs extends GuardName {
  readonly count: number;
  readonly firstTime: number;
}

interface Lapsed extends GuardName {
  /** A lease, under which the guard may have decided. */
  readonly held: boolean;
  /** The calls that no event stands for yet. */
  readonly syncs: CountedSyncs | undefined;
}

/**
 * The guards that hold, or may hold, a lease of this process, and the changes that each has acknowledged. An answer that
 * was sent proves nothing: only a later request that repeats its id does. Times are monotonic.
 */
export class Guards {
  readonly #clock: Clock;
  readonly #wait: (ms: number, signal: AbortSignal) => Promise<unknown>;
  readonly #lentBeforeUntil: number;
  readonly #guards = new Map<string, Guard>();
  readonly #ofKey = new Map<string, number>();
  readonly #waiting = new Set<Waiting>();

  /**
   * @param lentBeforeUntil until then a process before this one may have lent leases
   * @param wait replaced in tests
   */
  constructor(
    clock: Clock,
    lentBeforeUntil = Number.NEGATIVE_INFINITY,
    wait: (ms: number, signal: AbortSignal) => Promise<unknown> = (ms, signal) =>
      delay(ms, undefined, { signal }).catch(() => {}),
  ) {
    this.#clock = clock;
    this.#lentBeforeUntil = lentBeforeUntil;
    this.#wait = wait;
  }

  get count(): number {
    return this.#guards.size;
  }

  /** Notes a call of a guard. @throws ApiError TOO_MANY_GUARDS */
  met(name: GuardName): CountedSyncs | undefined {
    const guard = this.#guards.get(keyOf(name)) ?? this.#begin(name);
    if (guard.syncs === 0) guard.syncsSince = this.#clock.now();
    guard.syncs++;
    guard.metAt = this.#clock.monotonic();
    return this.#clock.monotonic() - guard.eventAt < EVENT_EVERY_MS ? undefined : this.#counted(guard);
  }

  #begin(name: GuardName): Guard {
    const ofKey = this.#ofKey.get(name.callerKeyId) ?? 0;
    if (this.#guards.size >= MAX_GUARDS || ofKey >= MAX_OF_KEY)
      throw new ApiError('TOO_MANY_GUARDS', 'too many guards hold leases here', { retryAfterMs: 5_000 });
    const guard: Guard = {
      callerKeyId: name.callerKeyId,
      guardId: name.guardId,
      acknowledged: 0,
      lent: [],
      syncs: 0,
      syncsSince: 0,
      eventAt: Number.NEGATIVE_INFINITY,
      metAt: this.#clock.monotonic(),
    };
    this.#guards.set(keyOf(name), guard);
    this.#ofKey.set(name.callerKeyId, ofKey + 1);
    return guard;
  }

  #counted(guard: Guard): CountedSyncs {
    const { callerKeyId, guardId, syncs, syncsSince } = guard;
    guard.syncs = 0;
    guard.eventAt = this.#clock.monotonic();
    return { callerKeyId, guardId, count: syncs, firstTime: syncsSince };
  }

  /** The guard has applied the answer with this id. */
  acknowledge(name: GuardName, grantId: string): void {
    const guard = this.#guards.get(keyOf(name));
    const of = guard?.lent.find(({ id }) => id === grantId);
    if (guard === undefined || of === undefined) return;
    guard.acknowledged = Math.max(guard.acknowledged, of.revision);
    this.#release(guard, guard.acknowledged);
  }

  /** In the same turn as the changes of the answer were read. */
  lend(name: GuardName, id: string, revision: number, leaseMs: number): void {
    const guard = this.#guards.get(keyOf(name)) ?? this.#begin(name);
    const now = this.#clock.monotonic();
    guard.lent = guard.lent.filter(({ overAt }) => overAt > now);
    guard.lent.push({ id, revision, overAt: now + leaseMs * DRIFT + MARGIN_MS });
  }

  /** The guard has given its lease back; returns its calls that no event stands for yet. */
  leave(name: GuardName): CountedSyncs | undefined {
    const guard = this.#guards.get(keyOf(name));
    if (guard === undefined) return undefined;
    this.#guards.delete(keyOf(name));
    const left = (this.#ofKey.get(name.callerKeyId) ?? 1) - 1;
    if (left > 0) this.#ofKey.set(name.callerKeyId, left);
    else this.#ofKey.delete(name.callerKeyId);
    this.#release(guard, Number.POSITIVE_INFINITY);
    return guard.syncs === 0 ? undefined : this.#counted(guard);
  }

  /** Forgets and returns the guards whose leases have lapsed, and those that were lent none and ask no more. */
  lapsed(): readonly Lapsed[] {
    const now = this.#clock.monotonic();
    const gone = [...this.#guards.values()].filter(({ lent, metAt }) =>
      lent.length > 0 ? lent.every(({ overAt }) => overAt <= now) : now - metAt >= EVENT_EVERY_MS,
    );
    return gone.map(({ callerKeyId, guardId, lent }) => ({
      callerKeyId,
      guardId,
      held: lent.length > 0,
      syncs: this.leave({ callerKeyId, guardId }),
    }));
  }

  /**
   * Resolves when no guard can decide any more by facts from before this published revision: each has acknowledged it,
   * or every lease that was lent without it has lapsed.
   */
  async waitFor(revision: number): Promise<void> {
    for (;;) {
      const unsafe = this.#unsafe(revision);
      const until = Math.max(this.#lentBeforeUntil, ...unsafe.values());
      const waitMs = until - this.#clock.monotonic();
      if (!(waitMs > 0)) return;
      const { promise, resolve: wake } = Promise.withResolvers<void>();
      const waiting = { revision, unsafe, until, wake };
      this.#waiting.add(waiting);
      const over = new AbortController();
      await Promise.race([promise, this.#wait(waitMs, over.signal)]);
      over.abort();
      this.#waiting.delete(waiting);
    }
  }

  #unsafe(revision: number): Map<Guard, number> {
    const unsafe = new Map<Guard, number>();
    for (const guard of this.#guards.values()) {
      if (guard.acknowledged >= revision) continue;
      const ends = guard.lent.filter((one) => one.revision < revision).map(({ overAt }) => overAt);
      if (ends.length > 0) unsafe.set(guard, Math.max(...ends));
    }
    return unsafe;
  }

  /** Wakes the changes that wait longest for this guard. Looking at all guards for each of them would be quadratic. */
  #release(guard: Guard, revision: number): void {
    for (const { revision: needed, unsafe, until, wake } of this.#waiting) {
      const end = unsafe.get(guard);
      if (end === undefined || revision < needed) continue;
      unsafe.delete(guard);
      if (end === until || unsafe.size === 0) wake();
    }
  }
}

/** How often an event stands for the calls of a guard. */
const EVENT_EVERY_MS = 60_000;

function keyOf({ callerKeyId, guardId }: GuardName): string {
  return `${callerKeyId} ${guardId}`;
}

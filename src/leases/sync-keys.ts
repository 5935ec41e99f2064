import { LRUCache } from 'lru-cache';
import { auditEntry } from '../keys/audit-entry.ts';
import type { Decision } from '../keys/check.ts';
import { ApiError, Violations } from '../keys/errors.ts';
import type { AuditEntry, AuditLog, CallOrigin } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Lendable, Lending, LocalUses, RecentChange } from '../keys/ports/guards.ts';
import type { KeyStore, LastUses } from '../keys/ports/key-store.ts';
import type { Lockout } from '../keys/ports/limits.ts';
import { type Grant, GrantTokens, type GuardName } from './grant-token.ts';
import type { CountedSyncs, Guards } from './guards.ts';

/** How far the clock of a guard may be off, as far as it knows. */
const CLOCK_MS = 1_000;
/** A use that is older was perhaps recorded before, in a row that is dropped by now. */
const MAX_AGE_MS = 86_400_000;
const MAX_LOCKED = 1_000;
/** The most calls that are held open at once; others are answered at once. */
const MAX_HELD = 256;
const HOUR_MS = 3_600_000;
const LOCKED_MS = 250;
const LAPSE_EVERY_MS = 1_000;
/** Below every revision: the answer is a reset. */
const NO_CURSOR = -1;
/** A guard is asked to wait so long for the next try when no lease can be lent now. */
const NO_LEASE_MS = 250;

/** Equal decisions of a guard within an hour; their fields are checked. Times are milliseconds since 1970. */
export interface ReportedUse {
  readonly sequence: number;
  readonly keyId: string;
  readonly decision: Decision;
  readonly requiredScope: string | undefined;
  readonly clientIp: string | undefined;
  readonly count: number;
  readonly firstTime: number;
  readonly lastTime: number;
}

export interface SyncInput {
  readonly guardId: string;
  readonly epoch: string;
  readonly revision: number;
  readonly lastGrantId: string;
  readonly uses: readonly ReportedUse[];
  readonly closing: boolean;
}

export interface SyncAnswer {
  readonly epoch: string;
  readonly revision: number;
  readonly changes: readonly RecentChange[];
  readonly reset: boolean;
  readonly grantId: string;
  readonly leaseMs: number;
  readonly serverTime: number;
  readonly pollAfterMs: number;
  readonly lockedAddresses: readonly string[];
  readonly lockedAddressesComplete: boolean;
}

export interface SyncKeysParts {
  /** GUARD_LEASES. */
  readonly lends: boolean;
  readonly lending: Lending;
  readonly guards: Guards;
  readonly localUses: LocalUses;
  readonly keys: Pick<KeyStore, 'get'>;
  readonly lockout: Pick<Lockout, 'list'>;
  readonly lastUses: LastUses;
  readonly audit: Pick<AuditLog, 'record'>;
  readonly clock: Clock;
  readonly epoch: () => string;
  /** Reports an event of a lapsed lease that could not be written. */
  readonly warn: (text: string, error: unknown) => void;
}

/** The use case of SyncKeys: lends leases to guards, and records the decisions that they made by themselves. */
export class SyncKeys {
  readonly #parts: SyncKeysParts;
  readonly #tokens: GrantTokens;
  /** Keys known to have had local validation, which they never lose. */
  readonly #everLocal = new LRUCache<string, true>({ max: 10_000 });
  readonly #stopped = new AbortController();
  #held = 0;
  #locked: { readonly at: number; readonly addresses: Promise<Locked> } | undefined;
  #lapsing: NodeJS.Timeout | undefined;
  /** Events of lapsed leases. Leases are lent only while events can be written, so they are few. */
  readonly #unwritten: AuditEntry[] = [];
  #writing = false;

  constructor(parts: SyncKeysParts) {
    this.#parts = parts;
    this.#tokens = new GrantTokens(parts.lending.secret, parts.epoch);
  }

  async run(input: SyncInput, origin: CallOrigin): Promise<SyncAnswer> {
    const { lends, guards, lending, clock } = this.#parts;
    if (!lends) throw new ApiError('LEASES_OFF', 'this server lends no leases: GUARD_LEASES is false');
    const guard = { callerKeyId: origin.callerKeyId, guardId: input.guardId };
    await this.#record(input, guard, origin);
    await this.#count(guards.met(guard));
    guards.acknowledge(guard, input.lastGrantId);
    if (input.closing) {
      await this.#count(guards.leave(guard));
      return this.#answer({ revision: input.revision, changes: [], leaseMs: 0 }, '', NONE_LOCKED, 0);
    }
    const known = input.epoch === this.#parts.epoch() && input.revision > 0;
    const cursor = known ? input.revision : NO_CURSOR;
    await lending.ready();
    const held = await this.#hold(cursor);
    const locked = await this.#lockedAddresses();
    // In one turn: the changes, the lease, and the note that it is lent.
    const lendable = lending.lend(cursor);
    const { leaseMs, revision } = lendable;
    const grantId = this.#tokens.seal({ time: clock.now(), leaseMs }, guard);
    if (leaseMs > 0) guards.lend(guard, grantId, revision, leaseMs);
    return this.#answer(
      lendable,
      grantId,
      locked,
      held ? 0 : leaseMs > 0 ? Math.min(lending.pollMs, leaseMs / 3) : NO_LEASE_MS,
    );
  }

  start(): void {
    this.#lapsing = setInterval(() => void this.#noteLapsed(), LAPSE_EVERY_MS).unref();
  }

  /** Answers the calls that are held open. */
  stop(): void {
    clearInterval(this.#lapsing);
    this.#stopped.abort();
  }

  #answer(
    { revision, changes, leaseMs }: Lendable,
    grantId: string,
    locked: Locked,
    pollAfterMs: number,
  ): SyncAnswer {
    const { clock, epoch } = this.#parts;
    return {
      epoch: epoch(),
      revision,
      changes: changes ?? [],
      reset: changes === undefined,
      grantId,
      leaseMs,
      serverTime: clock.now(),
      pollAfterMs,
      lockedAddresses: locked.addresses,
      lockedAddressesComplete: locked.complete,
    };
  }

  /** False when the call was not held: the guard should ask again later. */
  async #hold(cursor: number): Promise<boolean> {
    const { lending } = this.#parts;
    if (lending.holdMs === 0 || this.#held >= MAX_HELD || this.#stopped.signal.aborted) return false;
    this.#held++;
    try {
      await lending.changed(cursor, lending.holdMs, this.#stopped.signal);
    } finally {
      this.#held--;
    }
    return true;
  }

  /** @throws ApiError INVALID_REQUEST; then nothing is recorded */
  async #record({ uses, lastGrantId, guardId }: SyncInput, guard: GuardName, origin: CallOrigin) {
    if (uses.length === 0) return;
    const found = new Violations();
    const grant = this.#tokens.open(lastGrantId, guard);
    if (grant === undefined)
      found.add('last_grant_id', 'no grant of this store to this guard and calling key');
    else {
      for (const [i, use] of uses.entries())
        checkTimes(found, `uses[${i}]`, use, grant, this.#parts.clock.now());
      await this.#checkKeys(found, uses);
    }
    found.throwIfAny();
    await this.#parts.localUses.record(
      uses.map((use) => ({
        id: `${guard.callerKeyId}-${guardId}-${use.sequence}`,
        entry: this.#entryOf(use, guardId, origin),
      })),
    );
    for (const { keyId, decision, lastTime } of uses)
      if (decision === 'VALID') this.#parts.lastUses.note(keyId, lastTime);
  }

  #entryOf(use: ReportedUse, guardId: string, origin: CallOrigin): AuditEntry {
    const { keyId, decision, requiredScope = '', clientIp = '', count, firstTime, lastTime } = use;
    const facts = {
      outcome: `LOCAL_${decision}`,
      reason: decision === 'VALID' ? '' : decision,
      keyId,
      requiredScope,
      clientIp,
      cost: count,
      count,
      firstTime,
      requestId: `${guardId}/${use.sequence}`,
    };
    return { ...auditEntry(origin, this.#parts.clock, facts), time: lastTime, latencyMicros: 0 };
  }

  async #checkKeys(found: Violations, uses: readonly ReportedUse[]): Promise<void> {
    const unknown = [...new Set(uses.map(({ keyId }) => keyId))].filter((id) => !this.#everLocal.has(id));
    const keys = await Promise.all(unknown.map((id) => this.#parts.keys.get(id)));
    for (const key of keys) if (key?.everLocal === true) this.#everLocal.set(key.id, true);
    for (const [i, { keyId }] of uses.entries())
      if (!this.#everLocal.has(keyId)) found.add(`uses[${i}].key_id`, 'no key with local_validation');
  }

  async #lockedAddresses(): Promise<Locked> {
    const now = this.#parts.clock.monotonic();
    if (this.#locked === undefined || now - this.#locked.at >= LOCKED_MS)
      this.#locked = { at: now, addresses: this.#readLocked() };
    return this.#locked.addresses;
  }

  async #readLocked(): Promise<Locked> {
    const { items, next } = await this.#parts.lockout.list({ size: MAX_LOCKED, after: undefined });
    return { addresses: items.map(({ clientIp }) => clientIp), complete: next === undefined };
  }

  async #count(syncs: CountedSyncs | undefined): Promise<void> {
    if (syncs !== undefined) await this.#parts.audit.record(this.#countEntry(syncs));
  }

  #countEntry(syncs: CountedSyncs): AuditEntry {
    return this.#ownEntry(syncs, { outcome: 'OK', ...syncs });
  }

  /** A guard that is gone may have made decisions that it could not report. */
  async #noteLapsed(): Promise<void> {
    const reason = 'the lease of a guard lapsed: its last decisions may be missing';
    for (const { syncs, held, ...guard } of this.#parts.guards.lapsed()) {
      if (syncs !== undefined) this.#unwritten.push(this.#countEntry(syncs));
      if (held) this.#unwritten.push(this.#ownEntry(guard, { outcome: 'GAP', reason }));
    }
    if (this.#writing) return;
    this.#writing = true;
    try {
      for (let entry = this.#unwritten[0]; entry !== undefined; entry = this.#unwritten[0]) {
        await this.#parts.audit.record(entry);
        this.#unwritten.shift();
      }
    } catch (error) {
      this.#parts.warn('the event of a lapsed lease could not be written yet', error);
    } finally {
      this.#writing = false;
    }
  }

  #ownEntry(
    { callerKeyId, guardId }: GuardName,
    facts: Partial<AuditEntry> & { outcome: string },
  ): AuditEntry {
    const { clock } = this.#parts;
    const origin = {
      method: 'apikey.v1.ApiKeyAuth/SyncKeys',
      arriveTime: clock.now(),
      arriveMonotonic: clock.monotonic(),
      peerIp: '',
      callerKeyId,
      callerScopes: [],
      requestId: guardId,
    };
    const { outcome, reason, count, firstTime } = facts;
    return auditEntry(origin, clock, {
      outcome,
      ...(reason === undefined ? {} : { reason }),
      ...(count === undefined ? {} : { count }),
      ...(firstTime === undefined ? {} : { firstTime }),
    });
  }
}

interface Locked {
  readonly addresses: readonly string[];
  readonly complete: boolean;
}
const NONE_LOCKED: Locked = { addresses: [], complete: true };

/** A guard decides only while it holds a lease, and by the server's clock as it knows it. */
function checkTimes(
  found: Violations,
  at: string,
  { firstTime, lastTime }: ReportedUse,
  { time, leaseMs }: Grant,
  now: number,
): void {
  if (lastTime < now - MAX_AGE_MS) found.add(`${at}.last_time`, 'more than a day ago');
  if (firstTime > lastTime) found.add(`${at}.first_time`, 'after last_time');
  if (Math.floor(firstTime / HOUR_MS) !== Math.floor(lastTime / HOUR_MS))
    found.add(`${at}.first_time`, 'in another hour than last_time');
  // From the start of the call that was granted: at most a lease before the answer.
  if (firstTime < time - leaseMs - CLOCK_MS) found.add(`${at}.first_time`, 'before the lease');
  if (lastTime > time + leaseMs + CLOCK_MS) found.add(`${at}.last_time`, 'after the lease');
}

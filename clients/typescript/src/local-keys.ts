import crypto from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { durationMs, timestampMs } from '@bufbuild/protobuf/wkt';
import {
  Decision,
  type LocalUse,
  type SyncKeysRequest,
  SyncKeysRequestSchema,
  type SyncKeysResponse,
  type ValidateKeyResponse,
} from '../../../gen/apikey/v1/auth_pb.ts';
import { Journal, type OpenUse } from './journal.ts';
import { decide, factsIn, grantFor, type LocalFacts, lockedFormOf } from './local-decision.ts';
import { type Verdict, verdictOn } from './verdict.ts';

/** Beyond, the clocks of guard and server do not agree on when a key ends. */
const MAX_SKEW_MS = 5_000;
/** Client addresses of one key and scope whose uses are added up; beyond, they are forgotten and begin anew. */
const MOST_ADDRESSES = 1_000;

/** Milliseconds. */
export interface Clock {
  now(): number;
  monotonic(): number;
}
export const systemClock: Clock = { now: () => Date.now(), monotonic: () => performance.now() };

/** A scope of a key: the verdict that admits, and the uses of its addresses. */
interface Asked {
  readonly grant: string | undefined;
  readonly admitted: Verdict | undefined;
  readonly uses: Map<string, OpenUse>;
}

interface Kept {
  readonly facts: LocalFacts;
  readonly answer: ValidateKeyResponse;
  readonly asked: Map<string | undefined, Asked>;
}

/** A moment when a question was sent: its answer is kept only if no sync was applied since. */
export type Moment = number;

/**
 * The facts of keys and the lease under which a guard decides by them, without a server. A lease runs from the start of
 * the call that got it, by the larger of the monotonic and the wall clock; a clock that was set back has ended it.
 */
export class LocalKeys {
  readonly #capacity: number;
  readonly #clock: Clock;
  readonly #warn: (text: string) => void;
  readonly #guardId = crypto.randomBytes(16).toString('base64url');
  /** By the SHA-256 of the secret, the least recently used first. */
  readonly #kept = new Map<string, Kept>();
  readonly #hashesOf = new Map<string, Set<string>>();
  readonly #journal = new Journal();
  #epoch = '';
  #cursor = 0n;
  #grantId = '';
  #generation = 0;
  #startMonotonic = 0;
  #startWall = 0;
  #leaseMs = 0;
  #serverTime = 0;
  #locked: ReadonlySet<string> = new Set();
  #lockedComplete = false;
  #closing = false;
  #toldSkew = false;

  constructor(capacity: number, clock = systemClock, warn = (text: string) => process.emitWarning(text)) {
    this.#capacity = capacity;
    this.#clock = clock;
    this.#warn = warn;
  }

  get generation(): Moment {
    return this.#generation;
  }

  get revision(): bigint {
    return this.#cursor;
  }

  /** How long the lease lasts that is held, or was held last. */
  get leaseMs(): number {
    return this.#leaseMs;
  }

  get holds(): boolean {
    return this.#elapsed() < this.#leaseMs;
  }

  /** Since the start of the call that got the lease; infinite for a clock that was set back. */
  #elapsed(): number {
    const monotonic = this.#clock.monotonic() - this.#startMonotonic;
    const wall = this.#clock.now() - this.#startWall;
    return monotonic < 0 || wall < 0 ? Number.POSITIVE_INFINITY : Math.max(monotonic, wall);
  }

  /** The verdict, noted in the journal; undefined when the server must be asked. */
  decide(secret: string, scope: string | undefined, clientIp: string): Verdict | undefined {
    const elapsed = this.#elapsed();
    if (elapsed >= this.#leaseMs || this.#closing || this.#journal.isFull) return undefined;
    const hash = hashOf(secret);
    const kept = this.#kept.get(hash);
    if (kept === undefined) return undefined;
    // The most recently used last.
    this.#kept.delete(hash);
    this.#kept.set(hash, kept);
    if (clientIp !== '' && this.#mayBeLocked(clientIp)) return undefined;
    const asked = kept.asked.get(scope) ?? ask(kept, scope);
    const now = this.#serverTime + elapsed;
    const decision = decide(kept.facts, asked.grant, clientIp, now);
    const verdict =
      decision === Decision.VALID ? asked.admitted : verdictFor(kept, decision, scope, asked.grant);
    if (verdict === undefined) return undefined;
    const { keyId } = kept.answer;
    // Only the uses of admitted calls are looked up again: denials are rare.
    const before = decision === Decision.VALID ? asked.uses.get(clientIp) : undefined;
    const use = this.#journal.add(before, { keyId, decision, scope, clientIp }, now);
    if (use !== before && decision === Decision.VALID) {
      if (asked.uses.size >= MOST_ADDRESSES) asked.uses.clear();
      asked.uses.set(clientIp, use);
    }
    // The process may have been stopped in between.
    if (this.holds) return verdict;
    this.#journal.takeBack(use);
    return undefined;
  }

  #mayBeLocked(clientIp: string): boolean {
    if (!this.#lockedComplete) return true;
    return this.#locked.size > 0 && this.#locked.has(lockedFormOf(clientIp));
  }

  /** Keeps the facts of an answer to a question that was sent at this moment. */
  keep(secret: string, answer: ValidateKeyResponse, sent: Moment): void {
    const facts = factsIn(answer);
    if (facts === undefined || sent !== this.#generation || !this.holds) return;
    if (answer.facts?.epoch !== this.#epoch) return;
    const hash = hashOf(secret);
    this.#drop(hash);
    if (this.#kept.size >= this.#capacity) this.#drop(this.#kept.keys().next().value ?? '');
    this.#kept.set(hash, { facts, answer, asked: new Map() });
    const hashes = this.#hashesOf.get(answer.keyId) ?? new Set();
    this.#hashesOf.set(answer.keyId, hashes.add(hash));
  }

  #drop(hash: string): void {
    const kept = this.#kept.get(hash);
    if (kept === undefined) return;
    this.#kept.delete(hash);
    const hashes = this.#hashesOf.get(kept.answer.keyId);
    hashes?.delete(hash);
    if (hashes?.size === 0) this.#hashesOf.delete(kept.answer.keyId);
  }

  #clear(): void {
    this.#kept.clear();
    this.#hashesOf.clear();
  }

  /** The next request. With `closing` no decision is made any more. */
  request(closing = false): SyncKeysRequest {
    this.#closing ||= closing;
    return create(SyncKeysRequestSchema, {
      guardId: this.#guardId,
      epoch: this.#epoch,
      revision: this.#cursor,
      lastGrantId: this.#grantId,
      uses: [...this.#journal.send()],
      closing,
    });
  }

  get hasUses(): boolean {
    return !this.#journal.isEmpty;
  }

  /** Applies an answer in one step. @param startMonotonic, startWall when the request was sent */
  apply(request: SyncKeysRequest, answer: SyncKeysResponse, startMonotonic: number, startWall: number): void {
    this.confirm(request.uses);
    this.#generation++;
    const { epoch, revision, reset, changes, grantId, lease, serverTime } = answer;
    if (reset || epoch !== this.#epoch) {
      this.#clear();
      this.#cursor = revision;
    } else {
      for (const { keyId } of changes) for (const hash of this.#hashesOf.get(keyId) ?? []) this.#drop(hash);
      if (revision > this.#cursor) this.#cursor = revision;
    }
    this.#epoch = epoch;
    this.#grantId = grantId;
    this.#startMonotonic = startMonotonic;
    this.#startWall = startWall;
    this.#serverTime = serverTime === undefined ? 0 : timestampMs(serverTime);
    this.#leaseMs = lease === undefined || !this.#clocksAgree() ? 0 : durationMs(lease);
    this.#locked = new Set(answer.lockedAddresses);
    this.#lockedComplete = answer.lockedAddressesComplete;
  }

  /** The server's time was read after the request was sent. */
  #clocksAgree(): boolean {
    const skewMs = this.#serverTime - this.#startWall;
    const agree = skewMs > -MAX_SKEW_MS && this.#serverTime - this.#clock.now() < MAX_SKEW_MS;
    if (!agree && !this.#toldSkew) {
      const seconds = Math.round(-skewMs / 1000);
      this.#warn(`apikeyd: this clock is ${seconds} s ahead of the server's: no local decisions`);
    }
    this.#toldSkew = !agree;
    return agree;
  }

  confirm(uses: readonly LocalUse[]): void {
    this.#journal.confirm(uses);
  }
}

/** Node.js below 20.12 has no hash in one step. */
const hashOf: (secret: string) => string =
  typeof crypto.hash === 'function'
    ? (secret) => crypto.hash('sha256', secret, 'base64url')
    : (secret) => crypto.createHash('sha256').update(secret).digest('base64url');

function ask(kept: Kept, scope: string | undefined): Asked {
  const grant = grantFor(kept.facts.scopes, scope);
  const admitted = grant === undefined ? undefined : verdictFor(kept, Decision.VALID, scope, grant);
  const asked = { grant, admitted, uses: new Map() };
  kept.asked.set(scope, asked);
  return asked;
}

function verdictFor(
  { answer }: Kept,
  decision: Decision,
  scope: string | undefined,
  matchedScope = '',
): Verdict | undefined {
  const valid = decision === Decision.VALID;
  const decided = { ...answer, decision, valid, matchedScope, reasons: valid ? [] : [decision] };
  const verdict = verdictOn(decided, scope);
  return verdict && { ...verdict, local: true };
}

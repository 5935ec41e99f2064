/**
 * The path of ValidateKey, the heart of the program. `run` decides and records; when the facts have gone stale
 * meanwhile, it decides again. A decision takes these steps and stops at the first denial:
 *
 *   #decide          is the client's address locked out? a map in memory
 *   #decideUnlocked  has the text the shape of a secret? no I/O; then the record with its hash
 *   #decideFound     the rules of check.ts, in order; then the key's limits, only when every rule passed
 *
 * Then #record: the response waits until the event is durable. Without store or log there is an error, no decision.
 */
import { auditEntry } from './audit-entry.ts';
import type { CheckContext, Decision, Denial } from './check.ts';
import { allDenials, firstDenial } from './check.ts';
import { ApiError } from './errors.ts';
import type { FoundSlot, Key } from './key.ts';
import { slotOf } from './key.ts';
import { type MaybePromise, mapMaybe } from './maybe-promise.ts';
import type { AuditLog, CallOrigin } from './ports/audit.ts';
import type { Clock } from './ports/clock.ts';
import type { Found, KeyStore, LastUses } from './ports/key-store.ts';
import type { Lockout, QuotaLimiter, QuotaTaken } from './ports/limits.ts';
import type { Observer } from './ports/observer.ts';
import { retryAfterMs } from './quota.ts';
import { matchingGrant } from './scope.ts';
import { fingerprint, hashSecret, isSecret } from './secret.ts';

/** Attempts of one call until a decision is still based on fresh facts when it is recorded. */
const MAX_ATTEMPTS = 3;

/** A validation request in domain terms: checked, the address normalised. */
export interface ValidateInput {
  readonly secret: string;
  readonly requiredScope: string | undefined;
  readonly clientIp: string | undefined;
  readonly userAgent: string;
  readonly requestId: string;
  readonly cost: number;
  readonly dryRun: boolean;
  readonly minRevision: number;
  /** The client sent no key at all: MALFORMED, but not counted as a failure of its address. */
  readonly keyAbsent?: true;
}

/** The result in domain terms. */
export interface Verdict {
  readonly decision: Decision;
  /** The decision when it is a denial; in a dry run all denials, in order. */
  readonly reasons: readonly Denial[];
  readonly retryAfterMs?: number | undefined;
  readonly keyFingerprint?: string;
  readonly found?: Found;
  readonly key?: Key;
  readonly slot?: FoundSlot;
  readonly matchedScope?: string | undefined;
  readonly quota?: QuotaTaken | undefined;
}

export interface ValidateKeyParts {
  readonly keys: KeyStore;
  readonly quota: QuotaLimiter;
  readonly lockout: Lockout;
  readonly audit: AuditLog;
  readonly lastUses: LastUses;
  readonly clock: Clock;
  readonly observer: Observer;
  /** Which texts are looked up in the store at all. */
  readonly mayBeSecret: (text: string) => boolean;
}

/** The use case of ValidateKey, BatchValidateKeys and the gateways. */
export class ValidateKey {
  readonly #parts: ValidateKeyParts;

  constructor(parts: ValidateKeyParts) {
    this.#parts = parts;
  }

  /** Decides and records. Resolves only when the event is durable; throws when no decision could be made. */
  async run(input: ValidateInput, origin: CallOrigin): Promise<Verdict> {
    for (let attempt = 1; ; attempt++) {
      const decided = this.#decide(input);
      const verdict = decided instanceof Promise ? await decided : decided;
      await this.#record(verdict, input, origin);
      this.#note(verdict, input, origin);
      if (this.#isCurrent(verdict)) return verdict;
      // The facts may have been changed elsewhere meanwhile: decide again, with another event.
      if (attempt === MAX_ATTEMPTS) throw notCurrent();
    }
  }

  /** Decides in order, like single calls; the events share one wait. */
  async runAll(inputs: readonly ValidateInput[], origin: CallOrigin, attempt = 1): Promise<Verdict[]> {
    const verdicts: Verdict[] = [];
    const events: Promise<unknown>[] = [];
    const record = async (verdict: Verdict, input: ValidateInput) => {
      try {
        await this.#record(verdict, input, origin);
        this.#note(verdict, input, origin);
        return undefined;
      } catch (error) {
        // Returned, not thrown: a rejection must not go unhandled while a later item is being decided.
        return error;
      }
    };
    let failure: unknown;
    try {
      for (const input of inputs) {
        const verdict = await this.#decide(input);
        verdicts.push(verdict);
        events.push(record(verdict, input));
      }
    } catch (error) {
      failure = error;
    }
    failure ??= (await Promise.all(events)).find((error) => error !== undefined);
    if (failure !== undefined) throw failure;
    if (verdicts.every((verdict) => this.#isCurrent(verdict))) return verdicts;
    if (attempt === MAX_ATTEMPTS) throw notCurrent();
    return this.runAll(inputs, origin, attempt + 1);
  }

  #isCurrent({ found }: Verdict): boolean {
    return found === undefined || this.#parts.keys.isCurrent(found);
  }

  #decide(input: ValidateInput): MaybePromise<Verdict> {
    const { clientIp } = input;
    if (clientIp === undefined) return this.#decideUnlocked(input);
    const { lockout } = this.#parts;
    const lockedForMs = lockout.lockedForMs(clientIp) ?? lockout.readLockedForMs(clientIp);
    return mapMaybe(lockedForMs, (ms) =>
      ms > 0 ? this.#decideLocked(input, ms) : this.#decideUnlocked(input),
    );
  }

  /** LOCKED_OUT; in a dry run together with every other denial. */
  #decideLocked(input: ValidateInput, retryAfterMs: number): MaybePromise<Verdict> {
    if (!input.dryRun) return denied('LOCKED_OUT', { retryAfterMs });
    return mapMaybe(this.#decideUnlocked(input), (verdict) => {
      const reasons: Denial[] = ['LOCKED_OUT', ...verdict.reasons];
      return { ...verdict, decision: 'LOCKED_OUT', reasons, retryAfterMs };
    });
  }

  #decideUnlocked(input: ValidateInput): MaybePromise<Verdict> {
    const { secret, minRevision } = input;
    if (!this.#parts.mayBeSecret(secret)) return this.#failed(input, denied('MALFORMED'));
    const secretHash = hashSecret(secret);
    const found = this.#parts.keys.findByHash(secretHash, minRevision);
    return mapMaybe(found, (facts) => this.#decideFound(input, secretHash, facts));
  }

  #decideFound(input: ValidateInput, secretHash: string, found: Found): MaybePromise<Verdict> {
    const key = found.key;
    const slot = slotOf(found, secretHash);
    if (key === undefined || slot === undefined) {
      // An unknown text of a shape that only an imported key may have.
      if (!isSecret(input.secret)) return this.#failed(input, denied('MALFORMED', { found }));
      const miss = { keyFingerprint: fingerprint(secretHash), found };
      return this.#failed(input, denied('NOT_FOUND', miss));
    }
    const { requiredScope, clientIp } = input;
    const question: CheckContext = { requiredScope, clientIp, now: this.#parts.clock.now() };
    const matchedScope = requiredScope === undefined ? undefined : matchingGrant(key.scopes, requiredScope);
    const facts = { found, key, slot, matchedScope };
    if (input.dryRun) return this.#dryRun(facts, input, allDenials(key, slot, question));
    const denial = firstDenial(key, slot, question);
    if (denial !== undefined) return denied(denial, facts);
    if (key.rateLimits.length === 0) return withQuota(facts, undefined);
    return mapMaybe(this.#parts.quota.take(quotaOf(key, input)), (taken) => withQuota(facts, taken));
  }

  #dryRun(facts: KnownKey, input: ValidateInput, denials: Denial[]): MaybePromise<Verdict> {
    const { key } = facts;
    const quota = key.rateLimits.length === 0 ? undefined : this.#parts.quota.peek(quotaOf(key, input));
    return mapMaybe(quota, (state) => {
      const verdict = withQuota(facts, state);
      const reasons = [...denials, ...verdict.reasons];
      return { ...verdict, decision: reasons[0] ?? 'VALID', reasons };
    });
  }

  /** A failure that proves no possession counts against the address, unless that is locked out by now. */
  #failed(input: ValidateInput, verdict: Verdict): MaybePromise<Verdict> {
    const { clientIp, dryRun, keyAbsent } = input;
    if (clientIp === undefined || dryRun || keyAbsent) return verdict;
    return this.#countFailure(clientIp, verdict);
  }

  async #countFailure(clientIp: string, verdict: Verdict): Promise<Verdict> {
    const { lockedForMs, locksForMs } = await this.#parts.lockout.fail(clientIp);
    if (locksForMs !== undefined) this.#parts.observer.lockedOut(clientIp, locksForMs);
    return lockedForMs > 0 ? denied('LOCKED_OUT', { retryAfterMs: lockedForMs }) : verdict;
  }

  #record(verdict: Verdict, input: ValidateInput, origin: CallOrigin): Promise<void> {
    const { audit, clock } = this.#parts;
    const { decision, key, slot, reasons, keyFingerprint } = verdict;
    return audit.record(
      auditEntry(origin, clock, {
        outcome: `DECISION_${decision}`,
        reason: reasons.join(' '),
        keyId: key?.id ?? '',
        keyFingerprint: keyFingerprint ?? '',
        requiredScope: input.requiredScope ?? '',
        clientIp: input.clientIp ?? '',
        userAgent: input.userAgent,
        secretSlot: slot === undefined || slot === 'RETIRED' ? '' : slot,
        cost: input.cost,
        dryRun: input.dryRun,
        requestId: input.requestId,
      }),
    );
  }

  /** Passes a recorded decision to the counters and observers. */
  #note(
    { decision, key, slot }: Verdict,
    { clientIp, dryRun }: ValidateInput,
    { arriveTime: time }: CallOrigin,
  ): void {
    const { lastUses, observer } = this.#parts;
    observer.decided({ decision, key, slot, clientIp, dryRun, time });
    if (decision === 'VALID' && key !== undefined && !dryRun) lastUses.note(key.id, time);
  }
}

function notCurrent(): ApiError {
  const text = 'the store answers too slowly to decide on fresh facts';
  return new ApiError('STORE_UNAVAILABLE', text, { retryAfterMs: 1000, audited: true });
}

type KnownKey = Pick<Verdict, 'matchedScope'> & Required<Pick<Verdict, 'found' | 'key' | 'slot'>>;

function denied(denial: Denial, facts: Partial<Verdict> = {}): Verdict {
  return { ...facts, decision: denial, reasons: [denial] };
}

function withQuota(facts: KnownKey, quota: QuotaTaken | undefined): Verdict {
  if (quota === undefined || quota.admitted) return { ...facts, quota, decision: 'VALID', reasons: [] };
  return denied('RATE_LIMITED', { ...facts, quota, retryAfterMs: retryAfterMs(quota.states) });
}

function quotaOf(key: Key, input: ValidateInput) {
  return { bucket: key.rateLimitBucket, limits: key.rateLimits, cost: input.cost };
}

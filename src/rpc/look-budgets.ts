import { LRUCache } from 'lru-cache';
import type { Clock } from '../keys/ports/clock.ts';

const MAX_REMEMBERED = 10_000;
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

interface Level {
  tokens: number;
  since: number;
}

/** A token bucket for each subject: a burst at once, then a steady rate. */
class Buckets {
  readonly #levels = new LRUCache<string, Level>({ max: MAX_REMEMBERED });
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #perMs: number;

  constructor(clock: Clock, burst: number, perMs: number) {
    this.#clock = clock;
    this.#burst = burst;
    this.#perMs = perMs;
  }

  /** Milliseconds until a token is available; 0 when one is. */
  waitMs(subject: string): number {
    const level = this.#levels.get(subject);
    return level === undefined ? 0 : Math.max(0, Math.ceil((1 - this.#left(level)) / this.#perMs));
  }

  take(subject: string): void {
    const level = this.#levels.get(subject);
    const left = level === undefined ? this.#burst : this.#left(level);
    this.#levels.set(subject, { tokens: Math.max(0, left - 1), since: this.#clock.monotonic() });
  }

  #left({ tokens, since }: Level): number {
    return Math.min(this.#burst, tokens + (this.#clock.monotonic() - since) * this.#perMs);
  }
}

/**
 * The budgets for wrong credentials of an address. Subjects are networks (an IPv6 /64) and hashes of credentials.
 * Those that were good within the hour are remembered, so that an attacker at the same address does not block them.
 */
export class LookBudgets {
  readonly #clock: Clock;
  /** For a locked address: 10 look-ups a minute. */
  readonly #looks: Buckets;
  /** For a credential that was good lately, from any address. */
  readonly #goodLooks: Buckets;
  /** For an address with a recent good credential: one a minute for each 256th of all credentials. */
  readonly #share: Buckets;
  /** Failed credentials of an address that are recorded individually: 100 a second. */
  readonly #failures: Buckets;
  readonly #goodUntil = new LRUCache<string, number>({ max: 2 * MAX_REMEMBERED });

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#looks = new Buckets(clock, 10, 10 / MINUTE_MS);
    this.#goodLooks = new Buckets(clock, 10, 10 / MINUTE_MS);
    this.#share = new Buckets(clock, 1, 1 / MINUTE_MS);
    this.#failures = new Buckets(clock, 1_000, 0.1);
  }

  /** Notes that a look-up found a good credential. */
  good(network: string, credentialHash: string): void {
    const until = this.#clock.monotonic() + HOUR_MS;
    this.#goodUntil.set(network, until);
    this.#goodUntil.set(credentialHash, until);
  }

  wasGood(subject: string): boolean {
    return (this.#goodUntil.get(subject) ?? 0) > this.#clock.monotonic();
  }

  /** Takes one look-up of a locked address: 0 when taken, else the milliseconds to wait. */
  lookWaitMs(network: string, credentialHash: string): number {
    const part = `${network} ${credentialHash.slice(0, 2)}`;
    const candidates: [Buckets, string, boolean][] = [
      [this.#goodLooks, credentialHash, this.wasGood(credentialHash)],
      [this.#looks, network, true],
      [this.#share, part, this.wasGood(network)],
    ];
    let wait = Number.POSITIVE_INFINITY;
    for (const [buckets, subject, applies] of candidates) {
      if (!applies) continue;
      const waitMs = buckets.waitMs(subject);
      if (waitMs === 0) {
        buckets.take(subject);
        return 0;
      }
      wait = Math.min(wait, waitMs);
    }
    return wait;
  }

  /** Milliseconds until failed credentials of the address are looked up and recorded again. */
  failureWaitMs(network: string): number {
    return this.#failures.waitMs(network);
  }

  failed(network: string): void {
    this.#failures.take(network);
  }
}

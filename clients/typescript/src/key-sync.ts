import { setTimeout as delay } from 'node:timers/promises';
import { durationMs } from '@bufbuild/protobuf/wkt';
import type { SyncKeysRequest, SyncKeysResponse } from '../../../gen/apikey/v1/auth_pb.ts';
import { NoDecision, noDecision } from './failure.ts';
import { type LocalKeys, systemClock } from './local-keys.ts';

const RETRY_MS = 250;
/** After an answer that another try soon would repeat. */
const HOPELESS_MS = 60_000;
const LONGEST_POLL_MS = 60_000;

export type Send = (request: SyncKeysRequest, timeoutMs: number) => Promise<SyncKeysResponse>;

/** Keeps the lease of a guard: one call of SyncKeys after the other. */
export class KeySync {
  readonly #local: LocalKeys;
  readonly #send: Send;
  readonly #deadlineMs: number;
  readonly #clock: typeof systemClock;
  readonly #ended = new AbortController();
  readonly #loop: Promise<void>;

  constructor(local: LocalKeys, send: Send, deadlineMs: number, clock = systemClock) {
    this.#local = local;
    this.#send = send;
    this.#deadlineMs = deadlineMs;
    this.#clock = clock;
    this.#loop = this.#run();
  }

  /** Gives the lease back, with the decisions that were not reported yet. */
  async close(): Promise<void> {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    await this.#loop;
    await this.#once(true).catch(() => {
      // The server is away: its lease lapses, and it notes that decisions may be missing.
    });
  }

  async #run(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      const waitMs = await this.#once(false).catch(waitAfter);
      if (waitMs > 0)
        await delay(waitMs, undefined, { signal: this.#ended.signal, ref: false }).catch(() => {});
    }
  }

  /** Returns when the next call is due, in ms. */
  async #once(closing: boolean): Promise<number> {
    const request = this.#local.request(closing);
    const [monotonic, wall] = [this.#clock.monotonic(), this.#clock.now()];
    // The server may hold the call for a quarter of the lease.
    const timeoutMs = this.#local.leaseMs / 4 + this.#deadlineMs;
    try {
      const answer = await this.#send(request, timeoutMs);
      this.#local.apply(request, answer, monotonic, wall);
      const { pollAfter } = answer;
      return pollAfter === undefined ? 0 : Math.min(LONGEST_POLL_MS, durationMs(pollAfter));
    } catch (error) {
      // Never accepted, whenever it is sent again.
      if (noDecision(error).detail.startsWith('INVALID_ARGUMENT')) this.#local.confirm(request.uses);
      throw error;
    }
  }
}

function waitAfter(error: unknown): number {
  const failure = error instanceof NoDecision ? error : noDecision(error);
  const { detail, retryAfterMs, outcome } = failure;
  const hopeless =
    (outcome === 'MISCONFIGURED' && !detail.startsWith('INVALID_ARGUMENT')) ||
    /^(UNIMPLEMENTED|FAILED_PRECONDITION)/.test(detail);
  const base = hopeless ? HOPELESS_MS : (retryAfterMs ?? RETRY_MS);
  return base * (0.75 + Math.random() / 2);
}

import type { Clock, QuotaLimiter, QuotaTaken } from '../../keys/ports.ts';
import type { Counters, QuotaRequest } from '../../keys/quota.ts';
import { take } from '../../keys/quota.ts';
import type { LimitRows } from './limit-rows.ts';

/** A row outlives its last window, so that a clock set back does not forget it. */
const KEEP_MS = 86_400_000;

/** Quotas of the embedded store: counted in memory, made durable by the transaction of the call's own event. */
export class SqliteQuota implements QuotaLimiter {
  readonly #rows: LimitRows;
  readonly #clock: Clock;

  constructor(rows: LimitRows, clock: Clock) {
    this.#rows = rows;
    this.#clock = clock;
  }

  take(request: QuotaRequest): QuotaTaken {
    const now = this.#clock.now();
    const taken = take(request, this.#counters(request.bucket), now);
    if (taken.admitted) {
      const counters = live(taken.counters, now);
      let last = 0;
      for (const name in counters) last = Math.max(last, counters[name]?.end ?? 0);
      const expireTime = last + KEEP_MS;
      this.#rows.set(rowKey(request.bucket), { value: counters, expireTime });
    }
    return taken;
  }

  peek(request: QuotaRequest): QuotaTaken {
    return take(request, this.#counters(request.bucket), this.#clock.now());
  }

  #counters(bucket: string): Counters {
    return (this.#rows.get(rowKey(bucket))?.value ?? {}) as Counters;
  }
}

function rowKey(bucket: string): string {
  return `quota:${bucket}`;
}

/** Without windows that are over, so that limits which were renamed leave nothing behind. */
function live(counters: Counters, now: number): Counters {
  for (const name in counters) {
    if ((counters[name]?.end ?? 0) <= now)
      return Object.fromEntries(Object.entries(counters).filter(([, { end }]) => end > now));
  }
  return counters;
}

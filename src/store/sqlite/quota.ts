import type { Clock } from '../../keys/ports/clock.ts';
import type { QuotaLimiter, QuotaTaken } from '../../keys/ports/limits.ts';
import type { Counters, QuotaRequest } from '../../keys/quota.ts';
import { take } from '../../keys/quota.ts';
import type { DeferredTable } from './deferred-rows.ts';

/** Quotas of the embedded store: counted in memory, made durable in the transaction of the call's event. */
export class SqliteQuota implements QuotaLimiter {
  readonly #rows: DeferredTable<Counters>;
  readonly #clock: Clock;

  constructor(rows: DeferredTable<Counters>, clock: Clock) {
    this.#rows = rows;
    this.#clock = clock;
  }

  take(request: QuotaRequest): QuotaTaken {
    const now = this.#clock.now();
    const counters = this.#counters(request.bucket);
    const taken = take(request, counters, now);
    if (taken.counters !== counters) this.#rows.set(request.bucket, live(taken.counters, now));
    else this.#rows.keep(request.bucket, counters);
    return taken;
  }

  peek(request: QuotaRequest): QuotaTaken {
    return take(request, this.#counters(request.bucket), this.#clock.now());
  }

  #counters(bucket: string): Counters {
    return this.#rows.get(bucket) ?? {};
  }
}

/** The counters without windows that have ended: otherwise renamed limits would stay for ever. */
function live(counters: Counters, now: number): Counters {
  for (const name in counters) {
    if ((counters[name]?.end ?? 0) <= now)
      return Object.fromEntries(Object.entries(counters).filter(([, { end }]) => end > now));
  }
  return counters;
}

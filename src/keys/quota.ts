import type { RateLimit } from './key.ts';

/** One fixed window of one counter. Times are milliseconds since 1970, by the store's clock. */
export interface Counter {
  readonly used: number;
  readonly end: number;
}

/** The counters of one bucket, by counterName. */
export type Counters = Readonly<Record<string, Counter>>;

/** One limit after a take. */
export interface RateLimitState extends RateLimit {
  readonly bucket: string;
  readonly remaining: number;
  /** End of the window; undefined while nothing has been counted in it. */
  readonly resetTime: number | undefined;
  /** Set on an exceeded limit when waiting helps. */
  readonly retryAfterMs: number | undefined;
  readonly exceeded: boolean;
}

export interface Take {
  readonly admitted: boolean;
  readonly counters: Counters;
  readonly states: readonly RateLimitState[];
}

/** A request to a bucket: the calling key's limits, and the cost to take from each. */
export interface QuotaRequest {
  readonly bucket: string;
  readonly limits: readonly RateLimit[];
  readonly cost: number;
}

const names = new WeakMap<RateLimit, string>();

/** A counter is (bucket, limit name, window length); limits of several keys may share it. Safe as a field name. */
export function counterName(limit: RateLimit): string {
  let name = names.get(limit);
  if (name === undefined) {
    name = `${limit.windowMs}_${Buffer.from(limit.name).toString('base64url')}`;
    names.set(limit, name);
  }
  return name;
}

/** The counter as of `now`; undefined when its window is over or nothing was counted in it. */
function current(counters: Counters, limit: RateLimit, now: number): Counter | undefined {
  const counter = counters[counterName(limit)];
  return counter !== undefined && counter.end > now && counter.used > 0 ? counter : undefined;
}

/** The counters, with no window ending later than a full window from now: the clock may have been set back. */
function anchored(limits: readonly RateLimit[], counters: Counters, now: number): Counters {
  let next = counters as Record<string, Counter>;
  for (const limit of limits) {
    const name = counterName(limit);
    const counter = counters[name];
    if (counter === undefined || counter.end <= now + limit.windowMs) continue;
    if (next === counters) next = { ...counters };
    next[name] = { used: counter.used, end: now + limit.windowMs };
  }
  return next;
}

/** Takes `cost` from every limit, all or nothing: a denial changes no counter's use. Pure. */
export function take({ bucket, limits, cost }: QuotaRequest, stored: Counters, now: number): Take {
  const counters = anchored(limits, stored, now);
  // Every limited call runs this: one pass to check, one to take, and only the result is allocated.
  let admitted = true;
  for (const limit of limits)
    if ((current(counters, limit, now)?.used ?? 0) + cost > limit.limit) admitted = false;
  const after: Record<string, Counter> = admitted ? { ...counters } : {};
  const states: RateLimitState[] = [];
  for (const limit of limits) {
    const was = current(counters, limit, now);
    const is = admitted ? { used: (was?.used ?? 0) + cost, end: was?.end ?? now + limit.windowMs } : was;
    if (admitted && is !== undefined) after[counterName(limit)] = is;
    const exceeded = (was?.used ?? 0) + cost > limit.limit;
    const waitHelps = exceeded && cost <= limit.limit && was !== undefined;
    states.push({
      name: limit.name,
      limit: limit.limit,
      windowMs: limit.windowMs,
      bucket,
      // A shared counter may exceed the limit of a key with a smaller one.
      remaining: Math.max(0, limit.limit - (is?.used ?? 0)),
      resetTime: is?.end,
      retryAfterMs: waitHelps ? was.end - now : undefined,
      exceeded,
    });
  }
  return { admitted, counters: admitted ? after : counters, states };
}

/** Time until every exceeded limit can admit again; undefined when waiting does not help. */
export function retryAfterMs(states: readonly RateLimitState[]): number | undefined {
  const exceeded = states.filter((state) => state.exceeded);
  if (exceeded.length === 0 || exceeded.some((state) => state.retryAfterMs === undefined)) return undefined;
  return Math.max(...exceeded.map((state) => state.retryAfterMs ?? 0));
}

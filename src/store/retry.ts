import { setTimeout as delay } from 'node:timers/promises';

/** Waits after failed attempt `attempt` (from 1): a random half to all of a bound doubling from `baseMs` to `maxMs`. */
export function backoff(attempt: number, baseMs: number, maxMs: number, signal?: AbortSignal): Promise<void> {
  const most = Math.min(maxMs, baseMs * 2 ** Math.min(attempt - 1, 20));
  return delay(most * (0.5 + Math.random() / 2), undefined, signal === undefined ? {} : { signal });
}

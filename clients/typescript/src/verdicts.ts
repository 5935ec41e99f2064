import type { Verdict } from './verdict.ts';

const verdicts = new WeakMap<object, Verdict>();

/** For the handler behind a guard. */
export function remember(carrier: object, verdict: Verdict): void {
  verdicts.set(carrier, verdict);
}

/**
 * The verdict that admitted this request.
 *
 * @param carrier the request: of fetch (in Hono `c.req.raw`), Express or Fastify; `context.values` of Connect; `call.metadata`
 *     of grpc-js
 * @throws Error when no guard has checked the request: the route is open
 */
export function verdictOf(carrier: object): Verdict {
  const found = verdicts.get(carrier);
  if (found === undefined) throw new Error('no guard has let this request through');
  return found;
}

import type { Guard } from './guard.ts';
import type { Route } from './question.ts';
import { bodyOf, type Verdict } from './verdict.ts';
import { remember } from './verdicts.ts';

type Handler<Rest extends unknown[]> = (request: Request, ...rest: Rest) => Response | Promise<Response>;

export interface FetchRoute<Rest extends unknown[]> extends Route {
  /** The address of the peer, which a Request does not have. Without it, and without trusted proxies, it is unknown. */
  readonly peer?: (request: Request, ...rest: Rest) => string | undefined;
}

/** Guards a handler `(Request) → Response`. */
export function fetchGuard<Rest extends unknown[]>(
  guard: Guard,
  route: FetchRoute<Rest>,
  handler: Handler<Rest>,
): (request: Request, ...rest: Rest) => Promise<Response> {
  const decide = guard.route(route);
  return async (request, ...rest) => {
    const verdict = await decide({ header: headerOf(request.headers), peer: route.peer?.(request, ...rest) });
    if (!verdict.allowed) return denial(verdict);
    remember(request, verdict);
    const response = await handler(request, ...rest);
    if (verdict.headers.length === 0) return response;
    // The headers of a response may be immutable; those of its copy are not.
    const answered = new Response(response.body, response);
    for (const [name, value] of verdict.headers) answered.headers.set(name, value);
    return answered;
  };
}

interface HonoContext {
  readonly req: { readonly raw: Request };
  header(name: string, value: string): void;
}

export interface HonoRoute<C> extends Route {
  /** The address of the peer, such as `(c) => getConnInfo(c).remote.address`. */
  readonly peer?: (context: C) => string | undefined;
}

/** Middleware for Hono. The handler finds the verdict by `verdictOf(c.req.raw)`. */
export function honoGuard<C extends HonoContext>(guard: Guard, route: HonoRoute<C> = {}) {
  const decide = guard.route(route);
  return async (context: C, next: () => Promise<void>): Promise<Response | undefined> => {
    const { raw } = context.req;
    const verdict = await decide({ header: headerOf(raw.headers), peer: route.peer?.(context) });
    if (!verdict.allowed) return denial(verdict);
    remember(raw, verdict);
    await next();
    for (const [name, value] of verdict.headers) context.header(name, value);
    return undefined;
  };
}

const headerOf = (headers: Headers) => (name: string) => headers.get(name) ?? undefined;

function denial(verdict: Verdict): Response {
  const headers = verdict.headers.map(([name, value]): [string, string] => [name, value]);
  return new Response(bodyOf(verdict), { status: verdict.status, headers });
}

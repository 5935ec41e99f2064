import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Guard } from './guard.ts';
import type { HeaderOf, Route } from './question.ts';
import { bodyOf } from './verdict.ts';
import { remember } from './verdicts.ts';

/** Middleware for Express, Connect and compatible frameworks: `(request, response, next)`. */
export function expressGuard(guard: Guard, route: Route = {}) {
  const decide = guard.route(route);
  return async (request: IncomingMessage, response: ServerResponse, next: () => unknown): Promise<void> => {
    const verdict = await decide({ header: headerOf(request), peer: request.socket.remoteAddress });
    for (const [name, value] of verdict.headers) response.setHeader(name, value);
    if (verdict.allowed) {
      remember(request, verdict);
      next();
      return;
    }
    response.statusCode = verdict.status;
    response.end(bodyOf(verdict));
  };
}

interface FastifyRequest {
  readonly raw: IncomingMessage;
}
interface FastifyReply {
  header(name: string, value: string): unknown;
  code(status: number): { send(body: string): unknown };
}

/** An `onRequest` hook for Fastify. */
export function fastifyGuard(guard: Guard, route: Route = {}) {
  const decide = guard.route(route);
  return async (request: FastifyRequest, reply: FastifyReply): Promise<unknown> => {
    const { raw } = request;
    const verdict = await decide({ header: headerOf(raw), peer: raw.socket.remoteAddress });
    for (const [name, value] of verdict.headers) reply.header(name, value);
    if (!verdict.allowed) {
      reply.code(verdict.status).send(bodyOf(verdict));
      return reply;
    }
    remember(request, verdict);
    return undefined;
  };
}

function headerOf({ headers }: IncomingMessage): HeaderOf {
  return (name) => {
    const value = headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  };
}

import type { IncomingMessage } from 'node:http';
import type { Http2ServerRequest } from 'node:http2';
import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextKey,
  createContextValues,
  type Interceptor,
} from '@connectrpc/connect';
import { RetryInfoSchema } from '../../../gen/google/rpc/error_details_pb.ts';
import type { Guard } from './guard.ts';
import type { Route } from './question.ts';
import type { Verdict } from './verdict.ts';
import { remember } from './verdicts.ts';

const PEER = createContextKey<string | undefined>(undefined);

/** Pass this to connectNodeAdapter as `contextValues`: without it the client's address is unknown. */
export function peerAddress(request: IncomingMessage | Http2ServerRequest): ContextValues {
  return createContextValues().set(PEER, request.socket.remoteAddress);
}

/** An interceptor for servers of Connect. The handler finds the verdict by `verdictOf(context.values)`. */
export function connectGuard(guard: Guard, route: Route = {}): Interceptor {
  const decide = guard.route(route);
  return (next) => async (request) => {
    const { header, contextValues } = request;
    const verdict = await decide({
      header: (name) => header.get(name) ?? undefined,
      peer: contextValues.get(PEER),
    });
    if (!verdict.allowed) throw denial(verdict);
    remember(contextValues, verdict);
    const response = await next(request);
    for (const [name, value] of verdict.headers) response.header.set(name, value);
    return response;
  };
}

function denial(verdict: Verdict): ConnectError {
  const { error, code = Code.Internal, retryAfterMs } = verdict;
  const metadata = new Headers(limitsOf(verdict));
  const value = create(RetryInfoSchema, { retryDelay: durationFromMs(Math.ceil(retryAfterMs ?? 0)) });
  const details = retryAfterMs === undefined ? [] : [{ desc: RetryInfoSchema, value }];
  return new ConnectError(error, code, metadata, details);
}

/** Those headers of a verdict that have the same meaning in every protocol. */
export function limitsOf({ headers }: Verdict): [string, string][] {
  return headers.flatMap(([name, value]) => (name.startsWith('ratelimit') ? [[name, value]] : []));
}

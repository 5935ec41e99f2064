import { create, toBinary } from '@bufbuild/protobuf';
import { anyPack, durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import {
  Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
} from '@grpc/grpc-js';

type PartialStatusObject = Parameters<ServerInterceptingCall['sendStatus']>[0];

import { RetryInfoSchema } from '../../../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../../gen/google/rpc/status_pb.ts';
import { limitsOf } from './connect.ts';
import type { Guard } from './guard.ts';
import type { Route } from './question.ts';
import type { Verdict } from './verdict.ts';
import { remember } from './verdicts.ts';

/**
 * An interceptor for servers of grpc-js. The handler finds the verdict by `verdictOf(call.metadata)`.
 *
 * @param route for every method that is not in `methods`
 * @param methods routes by method path, `/package.Service/Method`
 */
export function grpcGuard(
  guard: Guard,
  route: Route = {},
  methods: Readonly<Record<string, Route | 'open'>> = {},
): ServerInterceptor {
  const others = guard.route(route);
  const named = new Map(
    Object.entries(methods).map(([path, each]) => [path, each === 'open' ? each : guard.route(each)]),
  );
  return ({ path }, call) => {
    const decide = named.get(path) ?? others;
    if (decide === 'open') return new ServerInterceptingCall(call);
    let limits: [string, string][] = [];
    const listener = new ServerListenerBuilder().withOnReceiveMetadata((metadata, next) => {
      const header = (name: string) => {
        const values = metadata.get(name);
        return values.length === 0 ? undefined : values.join(', ');
      };
      void decide({ header, peer: call.getConnectionInfo().remoteAddress }).then((verdict) => {
        if (!verdict.allowed) return call.sendStatus(denial(verdict));
        limits = limitsOf(verdict);
        remember(metadata, verdict);
        next(metadata);
      });
    });
    const responder = new ResponderBuilder()
      .withStart((next) => next(listener.build()))
      .withSendMetadata((metadata, next) => {
        for (const [name, value] of limits) metadata.set(name, value);
        next(metadata);
      });
    return new ServerInterceptingCall(call, responder.build());
  };
}

function denial(verdict: Verdict): PartialStatusObject {
  const { error, code = Code.Internal, retryAfterMs } = verdict;
  const metadata = new Metadata();
  for (const [name, value] of limitsOf(verdict)) metadata.set(name, value);
  if (retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(Math.ceil(retryAfterMs));
    const details = [anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay }))];
    const status = create(StatusSchema, { code, message: error, details });
    metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
  }
  return { code: code as number, details: error, metadata };
}

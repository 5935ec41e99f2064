import * as grpc from '@grpc/grpc-js';
import { ApiError } from '../keys/errors.ts';
import { newCall } from './call.ts';
import { type CallServer, unreadable } from './call-server.ts';
import { toGrpcStatus } from './grpc-status.ts';
import type { Mounted } from './method.ts';
import { peerIpOfGrpc } from './peer.ts';

// On the metadata itself: a weak set of every call's metadata cost more than the rest of this file.
const SERVED = Symbol('served');
type Marked = grpc.Metadata & { [SERVED]?: true };

/**
 * Calls that end before their handler begins: no message, a message cut off or beyond what the transport reads, a
 * client that went away. They are calls like any other, so they are recorded too.
 */
export class UnservedCalls {
  readonly #callServer: CallServer;
  readonly #prefixes: readonly string[];

  constructor(callServer: CallServer, services: readonly Mounted[]) {
    this.#callServer = callServer;
    this.#prefixes = services.map(({ service }) => `/${service.typeName}/`);
  }

  /** The handler of this call has begun and records it. */
  served(metadata: grpc.Metadata): void {
    (metadata as Marked)[SERVED] = true;
  }

  readonly interceptor: grpc.ServerInterceptor = (method, grpcCall) => {
    if (!this.#prefixes.some((prefix) => method.path.startsWith(prefix)))
      return grpcCall as grpc.ServerInterceptingCall;
    const call = () => {
      const peer = peerIpOfGrpc(grpcCall.getPeer());
      return newCall(this.#callServer.clock, method.path.slice(1), peer, undefined);
    };
    let received: grpc.Metadata | undefined;
    let recorded = false;
    const refuse = (error: ApiError) => {
      recorded = true;
      return this.#callServer.begin(call()).refuse(error);
    };
    const unserved = () => !recorded && (received as Marked | undefined)?.[SERVED] !== true;
    return new grpc.ServerInterceptingCall(grpcCall, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, pass) => {
            received = metadata;
            pass(metadata);
          },
          // grpc-js tells every call's end this way; the transport has answered this one itself.
          onCancel: () => {
            if (unserved())
              void refuse(new ApiError('REQUEST_NOT_RECEIVED', 'the request did not arrive whole'));
          },
        }),
      sendStatus: (status, next) => {
        if (!unserved()) next(status);
        else void refuse(unreadable(status.details)).then((error) => next(toGrpcStatus(error)));
      },
    });
  };
}

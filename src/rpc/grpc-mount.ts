import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { type DescMethodUnary, toBinary } from '@bufbuild/protobuf';
import { newCall } from './call.ts';
import type { CallServer } from './call-server.ts';
import { errorHeaders } from './grpc-status.ts';
import { UnaryCall, type UnaryRoute } from './grpc-unary.ts';
import type { Implementation, Mounted } from './method.ts';
import { readMessage } from './wire.ts';

/** gRPC's unary calls, which nearly all calls are, without a framework. Connect serves the rest of gRPC. */
export class GrpcMount {
  readonly #routes = new Map<string, UnaryRoute>();

  constructor(callServer: CallServer, services: readonly Mounted[]) {
    for (const { service, methods } of services) {
      for (const mounted of methods) {
        if (mounted.kind !== 'unary') continue;
        const { method, implementation } = mounted;
        this.#routes.set(
          `/${service.typeName}/${method.name}`,
          routeOf(callServer, `${service.typeName}/${method.name}`, method, implementation),
        );
      }
    }
  }

  /** Serves the stream if it is a unary call in binary; false when it is another's. */
  handle(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, peerIp: string): boolean {
    const type = headers['content-type'];
    if (type !== 'application/grpc' && type !== 'application/grpc+proto') return false;
    const route = this.#routes.get(headers[':path'] ?? '');
    if (route === undefined || headers[':method'] !== 'POST') return false;
    new UnaryCall(route, stream, headers, peerIp).begin();
    return true;
  }
}

function routeOf(
  callServer: CallServer,
  name: string,
  method: DescMethodUnary,
  implementation: Implementation<DescMethodUnary>,
): UnaryRoute {
  const begin = (headers: IncomingHttpHeaders, peerIp: string) =>
    callServer.begin(newCall(callServer.clock, name, peerIp, headers.authorization));
  return {
    refusal() {
      const error = callServer.shed(name);
      return error === undefined ? undefined : errorHeaders(error);
    },
    async serve(headers, peerIp, bytes) {
      const read = () => readMessage(method.input, bytes);
      return toBinary(method.output, await begin(headers, peerIp).answer(method, implementation, read));
    },
    refuse: (headers, peerIp, error) => begin(headers, peerIp).refuse(error),
  };
}

import { create, type DescMethodUnary, toBinary } from '@bufbuild/protobuf';
import type { RequestHeaders } from '../http2/request-headers.ts';
import type { ServerStream } from '../http2/stream.ts';
import { newCall } from './call.ts';
import { type CallServer, OVERLOADED } from './call-server.ts';
import { failureBlock, UnaryCall, type UnaryRoute } from './grpc-unary.ts';
import type { Implementation, Mounted } from './method.ts';
import { readMessage } from './wire.ts';

const OVERLOADED_BLOCK = failureBlock(OVERLOADED);

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

  /** Serves the stream if it is a unary call in binary; undefined when it is another's. */
  begin(stream: ServerStream): UnaryCall | undefined {
    const { headers } = stream;
    const type = headers.get('content-type');
    if (type !== 'application/grpc' && type !== 'application/grpc+proto') return undefined;
    const route = this.#routes.get(headers.get(':path') ?? '');
    if (route === undefined || headers.get(':method') !== 'POST') return undefined;
    return new UnaryCall(route, stream);
  }
}

function routeOf(
  callServer: CallServer,
  name: string,
  method: DescMethodUnary,
  implementation: Implementation<DescMethodUnary>,
): UnaryRoute {
  const { codec } = implementation;
  const begin = (headers: RequestHeaders, peerIp: string) =>
    callServer.begin(newCall(callServer.clock, name, peerIp, headers.get('authorization')));
  return {
    refusal: () => (callServer.sheds(name) ? OVERLOADED_BLOCK : undefined),
    async serve(headers, peerIp, bytes) {
      const read = () => codec?.decode(bytes) ?? readMessage(method.input, bytes);
      const message = await begin(headers, peerIp).answer(implementation, read);
      return codec?.encode(message) ?? toBinary(method.output, create(method.output, message));
    },
    refuse: (headers, peerIp, error) => begin(headers, peerIp).refuse(error),
  };
}

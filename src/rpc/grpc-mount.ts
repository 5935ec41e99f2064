import { type DescMethodUnary, toBinary } from '@bufbuild/protobuf';
import { ConnectError } from '@connectrpc/connect';
import * as grpc from '@grpc/grpc-js';
import { newCall } from './call.ts';
import type { CallServer } from './call-server.ts';
import { toGrpcStatus } from './grpc-status.ts';
import type { Health } from './health.ts';
import { LIMITS } from './limits.ts';
import type { Implementation, Mounted } from './method.ts';
import { peerIpOfGrpc } from './peer.ts';
import { reflection } from './reflection.ts';
import { UnservedCalls } from './unserved-calls.ts';
import { readMessage } from './wire.ts';

export interface TlsFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly clientCa: Buffer | undefined;
}

/** gRPC for internal services: all services, health and reflection. */
export class GrpcMount {
  readonly #server: grpc.Server;

  constructor(callServer: CallServer, services: readonly Mounted[], health: Health) {
    const unserved = new UnservedCalls(callServer, services);
    this.#server = new grpc.Server({
      'grpc.max_receive_message_length': LIMITS.transportBytes,
      'grpc.max_send_message_length': 8 * LIMITS.transportBytes,
      'grpc.max_metadata_size': LIMITS.headerBytes,
      'grpc.max_concurrent_streams': LIMITS.streamsPerConnection,
      'grpc.keepalive_time_ms': LIMITS.keepaliveMs,
      'grpc.keepalive_timeout_ms': LIMITS.keepaliveTimeoutMs,
      'grpc.enable_channelz': 0,
      interceptors: [unserved.interceptor],
    });
    for (const { service, methods } of services) {
      const definition: Record<string, grpc.MethodDefinition<Buffer, Buffer>> = {};
      const handlers: grpc.UntypedServiceImplementation = {};
      for (const method of service.methods) {
        const implementation = methods.get(method.localName);
        if (implementation === undefined || method.methodKind !== 'unary') continue;
        definition[method.localName] = passThrough(`/${service.typeName}/${method.name}`);
        handlers[method.localName] = unaryHandler(
          callServer,
          method as DescMethodUnary,
          implementation,
          unserved,
        );
      }
      this.#server.addService(definition, handlers);
    }
    health.addToServer(this.#server);
    reflection(services).addToServer(this.#server);
  }

  /** Resolves to the port that was bound. Rejects when the address cannot be had. */
  listen(address: string, tls: TlsFiles | undefined): Promise<number> {
    const credentials =
      tls === undefined
        ? grpc.ServerCredentials.createInsecure()
        : grpc.ServerCredentials.createSsl(
            tls.clientCa ?? null,
            [{ cert_chain: tls.cert, private_key: tls.key }],
            tls.clientCa !== undefined,
          );
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, credentials, (error, port) => (error ? reject(error) : resolve(port)));
    });
  }

  /** Takes no new calls and waits for those under way. */
  drain(): Promise<void> {
    return new Promise((resolve) => this.#server.tryShutdown(() => resolve()));
  }

  close(): void {
    this.#server.forceShutdown();
  }
}

/** Bytes in, bytes out: messages are read inside the call, so that one that cannot be read is audited too. */
function passThrough(path: string): grpc.MethodDefinition<Buffer, Buffer> {
  const same = (bytes: Buffer) => bytes;
  return {
    path,
    requestStream: false,
    responseStream: false,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}

function unaryHandler(
  callServer: CallServer,
  method: DescMethodUnary,
  implementation: Implementation<DescMethodUnary>,
  unserved: UnservedCalls,
): grpc.handleUnaryCall<Buffer, Buffer> {
  const name = `${method.parent.typeName}/${method.name}`;
  return (grpcCall, callback) => {
    const { metadata } = grpcCall;
    const authorization = metadata.get('authorization')[0]?.toString();
    const call = newCall(callServer.clock, name, peerIpOfGrpc(grpcCall.getPeer()), authorization);
    unserved.served(metadata);
    const answer = async () => {
      const session = callServer.begin(call);
      await session.authenticate(implementation.access);
      return session.serve(method, implementation, () => readMessage(method.input, grpcCall.request));
    };
    answer().then(
      (message) => callback(null, asBuffer(toBinary(method.output, message))),
      (error: unknown) => callback(toGrpcStatus(ConnectError.from(error))),
    );
  };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

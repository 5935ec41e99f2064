import { type DescMethod, type DescMethodUnary, toBinary } from '@bufbuild/protobuf';
import { ConnectError } from '@connectrpc/connect';
import * as grpc from '@grpc/grpc-js';
import { newCall } from './call.ts';
import type { CallServer } from './call-server.ts';
import { toGrpcStatus } from './grpc-status.ts';
import type { Health } from './health.ts';
import { LIMITS } from './limits.ts';
import type { Implementation, Mounted, MountedMethod } from './method.ts';
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
      for (const mounted of methods) {
        const { method, kind } = mounted;
        definition[method.localName] = passThrough(`/${service.typeName}/${method.name}`, kind !== 'unary');
        handlers[method.localName] =
          mounted.kind === 'unary'
            ? unaryHandler(callServer, mounted.method, mounted.implementation, unserved)
            : streamHandler(callServer, mounted, unserved);
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
function passThrough(path: string, responseStream: boolean): grpc.MethodDefinition<Buffer, Buffer> {
  const same = (bytes: Buffer) => bytes;
  return {
    path,
    requestStream: false,
    responseStream,
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
  const name = nameOf(method);
  return (grpcCall, callback) => {
    const call = callOf(callServer, name, grpcCall);
    unserved.served(grpcCall.metadata);
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

/** Waits for the client to read: what it does not read in time is bounded by the subscription, not by memory. */
function streamHandler(
  callServer: CallServer,
  mounted: Extract<MountedMethod, { kind: 'server_streaming' }>,
  unserved: UnservedCalls,
): grpc.handleServerStreamingCall<Buffer, Buffer> {
  const { method, implementation } = mounted;
  const name = nameOf(method);
  return (grpcCall) => {
    const call = callOf(callServer, name, grpcCall);
    unserved.served(grpcCall.metadata);
    const answer = async () => {
      const session = callServer.begin(call);
      await session.authenticate(implementation.access);
      const { messages, end } = await session.open(mounted, () =>
        readMessage(method.input, grpcCall.request),
      );
      grpcCall.once('cancelled', end);
      if (grpcCall.cancelled) end();
      for await (const message of messages) {
        if (grpcCall.write(asBuffer(toBinary(method.output, message)))) continue;
        await new Promise<void>((resolve) => {
          grpcCall.once('drain', resolve);
          grpcCall.once('cancelled', () => resolve());
        });
      }
    };
    answer().then(
      () => grpcCall.end(),
      (error: unknown) => grpcCall.emit('error', toGrpcStatus(ConnectError.from(error))),
    );
  };
}

function nameOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function callOf(
  callServer: CallServer,
  name: string,
  grpcCall: grpc.ServerUnaryCall<Buffer, Buffer> | grpc.ServerWritableStream<Buffer, Buffer>,
) {
  const authorization = grpcCall.metadata.get('authorization')[0]?.toString();
  return newCall(callServer.clock, name, peerIpOfGrpc(grpcCall.getPeer()), authorization);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

import { create, type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import type { ConnectError } from '@connectrpc/connect';
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts';

/** Encodes an error as gRPC's headers or trailers, with its details in `grpc-status-details-bin`. */
export function errorFields(error: ConnectError): (readonly [name: string, value: string])[] {
  const outgoing = error.details as { desc: DescMessage; value: Message }[];
  const details = outgoing.map(({ desc, value }) => anyPack(desc, value));
  const status = create(StatusSchema, { code: error.code, message: error.rawMessage, details });
  const packed = Buffer.from(toBinary(StatusSchema, status)).toString('base64');
  return [
    ['grpc-status', String(error.code)],
    ['grpc-message', percentEncoded(error.rawMessage)],
    ['grpc-status-details-bin', packed.replace(/=+$/, '')],
    ['grpc-accept-encoding', 'identity,gzip'],
  ];
}

/** Encodes a text for a gRPC header: `%` and all but printable ASCII become `%XX` of their UTF-8 bytes. */
function percentEncoded(text: string): string {
  return text.replace(/[^\x20-\x24\x26-\x7e]+/g, (run) =>
    [...Buffer.from(run)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
}

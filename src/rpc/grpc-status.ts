import { create, type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import type { ConnectError } from '@connectrpc/connect';
import * as grpc from '@grpc/grpc-js';
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts';

/** The error as grpc-js sends it, with its details in `grpc-status-details-bin`. */
export function toGrpcStatus(error: ConnectError): Required<Omit<grpc.StatusObject, 'detailsObject'>> {
  const outgoing = error.details as { desc: DescMessage; value: Message }[];
  const details = outgoing.map(({ desc, value }) => anyPack(desc, value));
  const status = create(StatusSchema, { code: error.code, message: error.rawMessage, details });
  const metadata = new grpc.Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
  return { code: error.code as number, details: error.rawMessage, metadata };
}

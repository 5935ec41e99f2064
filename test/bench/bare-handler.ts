/** A handler without a framework: the messages of ValidateKey on node:http2, decoded and encoded by protobuf-es. */
import { createServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  Decision,
  ValidateKeyRequestSchema,
  ValidateKeyResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';

const HEADERS = { ':status': 200, 'content-type': 'application/grpc' };

function answer(stream: ServerHttp2Stream, frame: Buffer): void {
  fromBinary(ValidateKeyRequestSchema, frame.subarray(5));
  const response = create(ValidateKeyResponseSchema, { decision: Decision.VALID, valid: true });
  const message = toBinary(ValidateKeyResponseSchema, response);
  const out = Buffer.alloc(5 + message.length);
  out.writeUInt32BE(message.length, 1);
  out.set(message, 5);
  stream.respond(HEADERS, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(out);
}

const server = createServer();
server.on('stream', (stream) => {
  const parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  stream.on('end', () => answer(stream, Buffer.concat(parts)));
});
const [, , port = '0'] = process.argv;
server.listen(Number(port), '127.0.0.1', () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});

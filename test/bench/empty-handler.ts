/**
 * The yardstick: an empty grpc-js handler with the messages of ValidateKey, decoded and encoded by protobuf-es; with TLS
 * where TLS_CERT_FILE names a certificate.
 */
import { readFileSync } from 'node:fs';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import * as grpc from '@grpc/grpc-js';
import {
  Decision,
  type ValidateKeyRequest,
  ValidateKeyRequestSchema,
  type ValidateKeyResponse,
  ValidateKeyResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';

const server = new grpc.Server({ 'grpc.enable_channelz': 0, 'grpc.max_concurrent_streams': 1024 });
const method: grpc.MethodDefinition<ValidateKeyRequest, ValidateKeyResponse> = {
  path: '/apikey.v1.ApiKeyAuth/ValidateKey',
  requestStream: false,
  responseStream: false,
  requestSerialize: (message) => Buffer.from(toBinary(ValidateKeyRequestSchema, message)),
  requestDeserialize: (bytes) => fromBinary(ValidateKeyRequestSchema, bytes),
  responseSerialize: (message) => Buffer.from(toBinary(ValidateKeyResponseSchema, message)),
  responseDeserialize: (bytes) => fromBinary(ValidateKeyResponseSchema, bytes),
};
const handler: grpc.handleUnaryCall<ValidateKeyRequest, ValidateKeyResponse> = (_call, callback) =>
  callback(null, create(ValidateKeyResponseSchema, { decision: Decision.VALID, valid: true }));
server.addService({ validateKey: method }, { validateKey: handler });
const { TLS_CERT_FILE: certFile = '', TLS_KEY_FILE: keyFile = '' } = process.env;
const credentials =
  certFile === ''
    ? grpc.ServerCredentials.createInsecure()
    : grpc.ServerCredentials.createSsl(null, [
        { cert_chain: readFileSync(certFile), private_key: readFileSync(keyFile) },
      ]);
const [, , port = '0'] = process.argv;
server.bindAsync(`127.0.0.1:${port}`, credentials, (error, bound) => {
  if (error) throw error;
  process.stdout.write(`${bound}\n`);
});

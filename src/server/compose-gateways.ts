import { Authorization } from '../../gen/envoy/service/auth/v3/external_auth_pb.ts';
import { type Config, parseKeyHeaders } from '../config.ts';
import { ClientKey } from '../gateways/client-key.ts';
import { envoyAuthorization } from '../gateways/envoy-auth.ts';
import { Gateway } from '../gateways/gateway.ts';
import { HttpAuth } from '../gateways/http-auth.ts';
import { Introspection } from '../gateways/introspection.ts';
import type { ValidateKey } from '../keys/validate-key.ts';
import type { CallPipeline } from '../rpc/call-pipeline.ts';
import { bindService } from '../rpc/method.ts';
import type { Logger } from './telemetry.ts';

/** The interfaces for proxies: a gRPC service, and paths of plain HTTP. */
export function composeGateways(
  config: Config,
  logger: Logger,
  validateKey: ValidateKey,
  callPipeline: CallPipeline,
) {
  const gateway = new Gateway({
    validateKey,
    clock: callPipeline.clock,
    clientKey: new ClientKey(parseKeyHeaders(config.GATEWAY_KEY_HEADERS)),
    allowAnonymous: config.ALLOW_ANONYMOUS_VALIDATE,
    reasons: config.GATEWAY_REASONS,
    misconfigured: (method, text) => logger.warn({ method }, `a proxy asks wrongly and is denied: ${text}`),
  });
  const { access } = gateway;
  const doors = [
    new HttpAuth(gateway, callPipeline),
    new Introspection({ validateKey, callPipeline, access }),
  ] as const;
  return { service: bindService(Authorization, envoyAuthorization(gateway)), doors };
}

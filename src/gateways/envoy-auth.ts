import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type Authorization,
  type CheckRequest,
  type CheckResponseSchema,
  HeaderAppendAction,
} from '../../gen/envoy/service/auth/v3/external_auth_pb.ts';
import { ApiError, Violations } from '../keys/errors.ts';
import type { HandlerResult, ServiceImplementation } from '../rpc/method.ts';
import { checkCodec } from './check-codec.ts';
import type { HeaderOf } from './client-key.ts';
import type { Gateway } from './gateway.ts';
import type { Header } from './ratelimit-headers.ts';
import { failureOf, type GatewayResponse, isMisconfigured, UPSTREAM_HEADERS } from './response.ts';
import { type Route, readRoute, refuseUnknown } from './route.ts';

/** The method name in audit events and metrics. */
const METHOD = 'envoy.service.auth.v3.Authorization/Check';
const EXTENSIONS = new Set(['required_scope', 'cost', 'trusted_hops', 'dry_run']);
/** Routes beyond this number are parsed again for each request. */
const MAX_KNOWN = 256;
/** gRPC's PERMISSION_DENIED; Envoy denies on every code except OK. */
const DENIED = 7;
/** Headers that are read besides those of the key. */
const READ = ['x-forwarded-for', 'user-agent', 'x-request-id'];

type CheckResponse = MessageInitShape<typeof CheckResponseSchema>;

/** Envoy's ext_authz over gRPC. */
export function envoyAuthorization(gateway: Gateway): ServiceImplementation<typeof Authorization> {
  const { clientKey } = gateway;
  const routes = new KnownRoutes();
  return {
    check: {
      access: gateway.access,
      codec: checkCodec([...clientKey.names, ...READ]),
      // Newer versions of Envoy add fields.
      skipsUnknownFields: true,
      handle(request, origin) {
        const address = request.attributes?.source?.address?.socketAddress?.address || undefined;
        return gateway.decide(routes.of(request), headersOf(request), address, origin).then(toHandlerResult);
      },
      /** An explicit denial, since a proxy that lets requests through on errors must not do so on these. */
      wordError(error) {
        gateway.note(METHOD, error);
        return isMisconfigured(error) ? toCheckResponse(failureOf(error)) : undefined;
      },
    },
  };
}

/** Caches parsed routes: a proxy has few and sends the same ones with each request. */
class KnownRoutes {
  readonly #known = new Map<string, Route>();

  of(request: CheckRequest): Route {
    const extensions = request.attributes?.contextExtensions ?? {};
    let text = '';
    for (const name in extensions) text += `${name}\0${extensions[name]}\0`;
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const route = routeOf(request);
    if (this.#known.size < MAX_KNOWN) this.#known.set(text, route);
    return route;
  }
}

function toHandlerResult(response: GatewayResponse): HandlerResult<CheckResponse> {
  return { message: toCheckResponse(response) };
}

function routeOf({ attributes }: CheckRequest): Route {
  const extensions = attributes?.contextExtensions ?? {};
  const found = new Violations();
  refuseUnknown(found, Object.keys(extensions), EXTENSIONS);
  const of = (name: string) => (Object.hasOwn(extensions, name) ? extensions[name] : undefined);
  const route = readRoute(found, ['required_scope', of('required_scope')], {
    cost: of('cost'),
    trusted_hops: of('trusted_hops'),
    dry_run: of('dry_run'),
  });
  found.throwIfAny();
  return route;
}

/** Envoy sends a map or, with encode_raw_headers, a list. */
function headersOf({ attributes }: CheckRequest): HeaderOf {
  const http = attributes?.request?.http;
  if (http === undefined) {
    const description = 'only HTTP requests can be checked';
    throw new ApiError('INVALID_REQUEST', description, {
      violations: [{ field: 'attributes.request.http', description }],
    });
  }
  const { headers, headerMap } = http;
  if (headerMap === undefined) return (name) => (Object.hasOwn(headers, name) ? headers[name] : undefined);
  return (name) => {
    const values = headerMap.headers.filter(({ key }) => key === name);
    return values.length === 0 ? undefined : values.map(textOf).join(',');
  };
}

function textOf({ value, rawValue }: { value: string; rawValue: Uint8Array }): string {
  return rawValue.length === 0 ? value : Buffer.from(rawValue).toString();
}

function toCheckResponse(response: GatewayResponse): CheckResponse {
  const { status, upstream, client, body, keyHeaders = [] } = response;
  if (status !== 200) {
    const headers = [...client, ['content-type', 'application/json'] as const].map(overwriting);
    return {
      status: { code: DENIED },
      httpResponse: { case: 'deniedResponse', value: { status: { code: status }, headers, body } },
    };
  }
  // Removes headers of these names sent by the client, also when this key sets no value for them.
  const headersToRemove = [...keyHeaders];
  for (const name of UPSTREAM_HEADERS)
    if (!upstream.some(([set]) => set === name)) headersToRemove.push(name);
  return {
    status: {},
    httpResponse: {
      case: 'okResponse',
      value: {
        headers: upstream.map(overwriting),
        headersToRemove,
        responseHeadersToAdd: client.map(overwriting),
      },
    },
  };
}

function overwriting([key, value]: Header) {
  return {
    header: { key, value },
    appendAction: HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
  };
}

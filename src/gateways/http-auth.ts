import { ApiError, Violations } from '../keys/errors.ts';
import type { CallPipeline } from '../rpc/call-pipeline.ts';
import { wordedError } from '../rpc/errors.ts';
import { newCall } from '../rpc/incoming-call.ts';
import type { Work } from '../rpc/method.ts';
import { type Door, JSON_TYPE, NO_STORE, singleValues, type WebRequest, type WebResponse } from './door.ts';
import type { Gateway } from './gateway.ts';
import { failureOf, type GatewayResponse } from './response.ts';
import { type Route, readRoute, refuseUnknown } from './route.ts';

/** The method name in audit events and metrics. */
const METHOD = 'http/auth';
const OPTIONS = new Set(['scope', 'cost', 'trusted_hops', 'dry_run', 'client_ip', 'deny']);
/** Routes beyond this number are parsed again for each request. */
const MAX_KNOWN = 256;

interface AuthRoute extends Route {
  /** The client's address is in `x-client-ip`, which the proxy sets. */
  readonly clientIpInHeader: boolean;
}

/** `/auth`: nginx's auth_request, Traefik's ForwardAuth, Caddy's forward_auth. */
export class HttpAuth implements Door {
  readonly path = '/auth';
  readonly #gateway: Gateway;
  readonly #callPipeline: CallPipeline;
  readonly #work: Work<WebRequest, GatewayResponse>;
  readonly #routes = new Map<string, AuthRoute>();

  constructor(gateway: Gateway, callPipeline: CallPipeline) {
    this.#gateway = gateway;
    this.#callPipeline = callPipeline;
    this.#work = {
      access: gateway.access,
      handle: async (request, origin) => {
        const route = this.#routeOf(request.query);
        // A missing header counts as an invalid address, since the proxy should have set it.
        const peer = route.clientIpInHeader ? (request.header('x-client-ip') ?? '') : undefined;
        return { message: await gateway.decide(route, request.header, peer, origin) };
      },
    };
  }

  async respond(request: WebRequest): Promise<WebResponse> {
    const { header, peerIp } = request;
    const call = newCall(this.#callPipeline.clock, METHOD, peerIp, header('x-apikeyd-authorization'));
    const deny = new URLSearchParams(request.query).get('deny');
    try {
      return toWeb(
        await this.#callPipeline.begin(call, { get: header }).respond(this.#work, () => request),
        deny,
      );
    } catch (error) {
      const apiError = wordedError(error);
      this.#gateway.note(METHOD, apiError);
      return toWeb(failureOf(apiError), deny);
    }
  }

  #routeOf(query: string): AuthRoute {
    const known = this.#routes.get(query);
    if (known !== undefined) return known;
    const route = readQuery(query);
    if (this.#routes.size < MAX_KNOWN) this.#routes.set(query, route);
    return route;
  }
}

function readQuery(query: string): AuthRoute {
  const found = new Violations();
  const values = singleValues(query, () => new ApiError('INVALID_REQUEST', 'an option comes twice'));
  refuseUnknown(found, values.keys(), OPTIONS);
  const route = readRoute(found, ['scope', values.get('scope')], {
    cost: values.get('cost'),
    trusted_hops: values.get('trusted_hops'),
    dry_run: values.get('dry_run'),
  });
  const clientIp = values.get('client_ip');
  if (clientIp !== undefined && clientIp !== 'header') found.add('client_ip', 'header, or leave it out');
  if (clientIp !== undefined && route.trustedHops > 0)
    found.add('client_ip', 'not together with trusted_hops');
  if ((values.get('deny') ?? '403') !== '403') found.add('deny', '403, or leave it out');
  found.throwIfAny();
  return { ...route, clientIpInHeader: clientIp !== undefined };
}

/** With deny=403 every denial is 403, since nginx treats statuses it does not know as failures. */
function toWeb({ status, upstream, client, body }: GatewayResponse, deny: string | null): WebResponse {
  if (status === 200) return { status, headers: [...upstream, ...client, NO_STORE], body: '' };
  const told = deny === '403' ? 403 : status;
  return {
    status: told,
    headers: [...client, ['x-apikey-status', String(status)], JSON_TYPE, NO_STORE],
    body,
  };
}

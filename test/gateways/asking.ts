import { createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node';
import { RevokeReason, RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import {
  Authorization,
  type CheckResponse,
  type HeaderValueOption,
} from '../../gen/envoy/service/auth/v3/external_auth_pb.ts';
import type { Clients, TestServer } from '../support/server.ts';

/** The handling of a response by a proxy, for every protocol. */
export interface Told {
  readonly status: number;
  readonly upstream: Record<string, string>;
  readonly client: Record<string, string>;
  readonly removed: readonly string[];
  readonly body: string;
}

export interface Asked {
  readonly headers: Record<string, string>;
  readonly scope?: string;
  readonly cost?: string;
  readonly trustedHops?: string;
  readonly dryRun?: string;
  /** The address that the proxy names. */
  readonly peer?: string;
  /** Other options of the route. */
  readonly more?: Record<string, string>;
}

export interface Caller {
  readonly name: string;
  ask(asked: Asked): Promise<Told>;
}

const UPSTREAM = /^x-apikey-(id|owner|type|scope|decision)$/;

export function envoyOn(server: TestServer, port: 'grpc' | 'http', key: string, json = false): Caller {
  const transport = (json ? createConnectTransport : createGrpcTransport)({
    baseUrl: `http://127.0.0.1:${server.running.ports[port]}`,
    httpVersion: '2',
    interceptors: [
      (next) => (request) => {
        if (key !== '') request.header.set('authorization', `Bearer ${key}`);
        return next(request);
      },
    ],
  });
  const client = createClient(Authorization, transport);
  return {
    name: `Envoy on ${port}${json ? ' by Connect' : ''}`,
    ask: async ({ headers, scope, cost, trustedHops, dryRun, peer, more }) => {
      const options = { required_scope: scope, cost, trusted_hops: trustedHops, dry_run: dryRun, ...more };
      const set = Object.entries(options).filter(([, value]) => value !== undefined);
      const source = peer === undefined ? {} : { source: { address: { socketAddress: { address: peer } } } };
      const contextExtensions = Object.fromEntries(set) as Record<string, string>;
      const attributes = { ...source, request: { http: { headers } }, contextExtensions };
      return told(await client.check({ attributes }));
    },
  };
}

function told({ status, httpResponse }: CheckResponse): Told {
  const pairs = (options: readonly HeaderValueOption[]) =>
    Object.fromEntries(options.map(({ header }) => [header?.key ?? '', header?.value ?? '']));
  if (httpResponse.case === 'okResponse' && status?.code === 0) {
    const { headers, headersToRemove, responseHeadersToAdd } = httpResponse.value;
    const client = pairs(responseHeadersToAdd);
    return { status: 200, upstream: pairs(headers), client, removed: headersToRemove, body: '' };
  }
  if (httpResponse.case !== 'deniedResponse' || status?.code === 0) throw new Error('neither yes nor no');
  const { status: denied, headers, body } = httpResponse.value;
  return { status: denied?.code ?? 0, upstream: {}, client: pairs(headers), removed: [], body };
}

export function httpAuthOn(server: TestServer, port: 'grpc' | 'http', key: string): Caller {
  return {
    name: `/auth on ${port}`,
    ask: async ({ headers, scope, cost, trustedHops, dryRun, peer, more }) => {
      const options = { scope, cost, trusted_hops: trustedHops, dry_run: dryRun, ...more };
      const query = new URLSearchParams();
      for (const [name, value] of Object.entries(options)) if (value !== undefined) query.set(name, value);
      if (peer !== undefined && trustedHops === undefined) query.set('client_ip', 'header');
      const response = await fetch(`http://127.0.0.1:${server.running.ports[port]}/auth?${query}`, {
        headers: {
          ...headers,
          ...(peer === undefined ? {} : { 'x-client-ip': peer }),
          ...(key === '' ? {} : { 'x-apikeyd-authorization': `Bearer ${key}` }),
        },
      });
      const all = [...response.headers];
      return {
        status: response.status,
        upstream: Object.fromEntries(all.filter(([name]) => UPSTREAM.test(name))),
        client: Object.fromEntries(all.filter(([name]) => !UPSTREAM.test(name))),
        removed: [],
        body: await response.text(),
      };
    },
  };
}

/** A working secret and one of each kind that does not work, for the scope `a:b`. */
export async function someKeys(admin: Clients['admin']) {
  const make = async (fields: object = {}) => {
    const made = await admin.createKey({
      name: 'key',
      ownerId: 'acme',
      keyType: 3,
      scopes: ['a:*'],
      ...fields,
    } as never);
    return { id: made.key?.id ?? '', secret: made.secret };
  };
  const [good, revoked, disabled, expired, rotated] = await Promise.all([0, 1, 2, 3, 4].map(() => make()));
  if (!good || !revoked || !disabled || !expired || !rotated) throw new Error('no keys');
  await admin.revokeKey({ id: revoked.id, reason: RevokeReason.KEY_COMPROMISE });
  await admin.updateKey({ key: { id: disabled.id, disabled: true }, updateMask: { paths: ['disabled'] } });
  await admin.expireKey({ id: expired.id });
  await admin.rotateKey({ id: rotated.id, mode: RotationMode.FORCED, grace: { seconds: 0n } });
  const elsewhere = await make({ ipAllowlist: ['192.0.2.0/24'] });
  const limited = await make({ rateLimits: [{ name: 'm', limit: 2n, window: { seconds: 60n } }] });
  return { good, revoked, disabled, expired, rotated, elsewhere, limited };
}

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Client, createClient, type Interceptor, type Transport } from '@connectrpc/connect';
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from '@connectrpc/connect-node';
import { MongoClient } from 'mongodb';
import { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../../gen/apikey/v1/integrations_pb.ts';
import { readConfig } from '../../src/config.ts';
import type { Clock } from '../../src/keys/ports/clock.ts';
import { type Running, serve, systemClock } from '../../src/server/serve.ts';
import { createLogger } from '../../src/server/telemetry.ts';

export type StoreKind = 'sqlite' | 'mongo';

/** A database of its own for one test file, and how to be rid of it. */
export function freshDatabase(
  kind: StoreKind,
  mongoUri: string,
): {
  url: string;
  folder: string;
  /** The whole content of the database, to search for texts that must not be in it. */
  contents(): Promise<string>;
  drop(): Promise<void>;
} {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-test-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  if (kind === 'sqlite')
    return {
      url: `sqlite:${folder}/apikeyd.db`,
      folder,
      contents: async () =>
        readdirSync(folder)
          .filter((name) => name.startsWith('apikeyd.db'))
          .map((name) => readFileSync(join(folder, name), 'latin1'))
          .join(''),
      drop: async () => remove(),
    };
  // Where no server is, the suite is skipped, but its body is read.
  const url = new URL(mongoUri || 'mongodb://none.invalid/');
  url.pathname = `/apikeyd_test_${randomBytes(6).toString('hex')}`;
  const drop = async () => {
    remove();
    const client = await new MongoClient(url.toString()).connect();
    await client.db().dropDatabase();
    await client.close();
  };
  const contents = async () => {
    const client = await new MongoClient(url.toString()).connect();
    const collections = await client.db().collections();
    const all = await Promise.all(collections.map((collection) => collection.find().toArray()));
    await client.close();
    return JSON.stringify(all);
  };
  return { url: url.toString(), folder, contents, drop };
}

export interface Clients {
  readonly auth: Client<typeof ApiKeyAuth>;
  readonly admin: Client<typeof ApiKeyAdmin>;
  readonly integrations: Client<typeof ApiKeyIntegrations>;
}

export const TRANSPORTS = ['grpc', 'connect-json', 'connect-binary', 'grpc-web', 'grpc-on-http'] as const;
export type TransportName = (typeof TRANSPORTS)[number];

export interface TestServer {
  readonly running: Running;
  readonly adminKey: string;
  readonly log: string[];
  clients(transport: TransportName, key?: string): Clients;
  stop(): Promise<void>;
}

/** The whole server in this process, on ports of its own. */
export async function startServer(
  url: string,
  folder: string,
  settings: Record<string, string> = {},
  clock: Clock = systemClock,
): Promise<TestServer> {
  const keyFile = join(folder, 'admin.key');
  const config = readConfig({
    STORE_URL: url,
    GRPC_ADDR: '127.0.0.1:0',
    HTTP_ADDR: '127.0.0.1:0',
    METRICS_ADDR: '127.0.0.1:0',
    APIKEYD_KEY_FILE: keyFile,
    ...settings,
  });
  const log: string[] = [];
  const running = await serve(
    config,
    createLogger('debug', 'json', { write: (line) => void log.push(line) }),
    clock,
  );
  const adminKey = settings.ADMIN_BOOTSTRAP_KEY ?? readFileSync(keyFile, 'utf8').trim();
  return {
    running,
    adminKey,
    log,
    clients: (transport, key = adminKey) => clientsOf(running.ports, transport, key),
    stop: () => running.stop(),
  };
}

/** Clients of a server; `key` '' sends no credential, `ca` is the certificate of one that speaks TLS. */
export function clientsOf(
  ports: { grpc: number; http: number },
  name: TransportName,
  key: string,
  ca?: Uint8Array,
): Clients {
  const transport = transportOf(ports, name, key, ca);
  return {
    auth: createClient(ApiKeyAuth, transport),
    admin: createClient(ApiKeyAdmin, transport),
    integrations: createClient(ApiKeyIntegrations, transport),
  };
}

function transportOf(
  { grpc, http }: { grpc: number; http: number },
  name: TransportName,
  key: string,
  ca?: Uint8Array,
): Transport {
  const credential: Interceptor = (next) => (request) => {
    if (key !== '') request.header.set('authorization', `Bearer ${key}`);
    return next(request);
  };
  const options = {
    interceptors: [credential],
    baseUrl: `${ca === undefined ? 'http' : 'https'}://127.0.0.1:${name === 'grpc' ? grpc : http}`,
    ...(ca === undefined ? {} : { nodeOptions: { ca: Buffer.from(ca) } }),
  };
  switch (name) {
    case 'grpc':
    case 'grpc-on-http':
      return createGrpcTransport(options);
    case 'grpc-web':
      return createGrpcWebTransport({ ...options, httpVersion: '1.1' });
    case 'connect-binary':
      return createConnectTransport({ ...options, httpVersion: '2', useBinaryFormat: true });
    case 'connect-json':
      return createConnectTransport({ ...options, httpVersion: '1.1' });
  }
}

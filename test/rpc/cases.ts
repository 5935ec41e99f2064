import { create } from '@bufbuild/protobuf';
import { durationFromMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, inject } from 'vitest';
import { type CreateKeyRequest, CreateKeyRequestSchema } from '../../gen/apikey/v1/admin_pb.ts';
import { Decision, type ValidateKeyRequest, ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { BadRequestSchema, ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { TestClock } from '../support/clock.ts';
import { requires } from '../support/requires.ts';
import {
  type Clients,
  freshDatabase,
  type StoreKind,
  startServer,
  type TestServer,
  TRANSPORTS,
  type TransportName,
} from '../support/server.ts';

type Fields<T> = { [K in keyof T]?: unknown };

/** A CreateKey request with defaults for the fields that a test does not set. */
export async function makeKey(clients: Clients, fields: Fields<CreateKeyRequest> = {}) {
  const request = create(CreateKeyRequestSchema, {
    name: 'test',
    ownerId: 'owner',
    keyType: KeyType.SERVICE,
    scopes: ['traces:read'],
    ...(fields as object),
  });
  const { key, secret } = await clients.admin.createKey(request);
  if (key === undefined) throw new Error('no key');
  return { key, secret, id: key.id };
}

export async function decide(clients: Clients, key: string, fields: Fields<ValidateKeyRequest> = {}) {
  return clients.auth.validateKey(create(ValidateKeyRequestSchema, { key, ...(fields as object) }));
}

export async function decisionOf(clients: Clients, key: string, fields: Fields<ValidateKeyRequest> = {}) {
  return nameOf((await decide(clients, key, fields)).decision);
}

const NAMES = Object.fromEntries(Object.entries(Decision).map(([name, number]) => [number, name]));

export function nameOf(decision: Decision): string {
  return NAMES[decision] ?? String(decision);
}

/** The code and the reason of a failing call, which clients match on. */
export async function failureOf(call: Promise<unknown>) {
  try {
    await call;
  } catch (error) {
    const failure = ConnectError.from(error);
    const [info] = failure.findDetails(ErrorInfoSchema);
    const fields = failure
      .findDetails(BadRequestSchema)
      .flatMap((b) => b.fieldViolations.map(({ field }) => field));
    return {
      code: Code[failure.code],
      reason: info?.reason,
      domain: info?.domain,
      fields,
      text: failure.rawMessage,
    };
  }
  return expect.fail('the call did not fail');
}

export const limit = (name: string, max: number, windowMs = 600_000) => ({
  name,
  limit: BigInt(max),
  window: durationFromMs(windowMs),
});

export const at = timestampFromMs;

export interface Mount {
  readonly clock: TestClock;
  readonly transport: TransportName;
  /** Clients with the admin key. */
  readonly clients: Clients;
  /** Clients with this key; '' sends none. */
  clientsFor(key: string): Clients;
  /** An address that no other case has used. */
  freshIp(): string;
}

/** The same suite on each store; `%s` in its name is the store's. */
export function onEachStore(name: string, suite: (kind: StoreKind) => void): void {
  describe(name.replace('%s', 'sqlite'), () => suite('sqlite'));
  requires('mongodb').describe(name.replace('%s', 'mongo'), () => suite('mongo'));
}

/**
 * The same cases through every protocol of both mounts; on MongoDB through one of each mount, as the mounts know nothing
 * of the store, and through all in the long run. Each store has one server.
 */
export function forEveryMount(cases: (mount: Mount) => void): void {
  onEachStore('%s', (kind) => {
    const all = kind === 'sqlite' || process.env.LONG;
    onServer(kind, {}, all ? TRANSPORTS : ['grpc', 'connect-json'], cases);
  });
}

/** The same, and once more on Node's HTTP/2: over one protocol of each mount that speaks it. */
export function forBothHttp2Servers(cases: (mount: Mount) => void): void {
  forEveryMount(cases);
  describe('sqlite, HTTP2_SERVER=node', () =>
    onServer('sqlite', { HTTP2_SERVER: 'node' }, ['grpc', 'connect-binary'], cases));
}

function onServer(
  kind: StoreKind,
  settings: Record<string, string>,
  transports: readonly TransportName[],
  cases: (mount: Mount) => void,
): void {
  const database = freshDatabase(kind, inject('mongoUri'));
  const clock = new TestClock(Date.now());
  let server: TestServer;
  let ip = 0;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, settings, clock);
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });
  describe.each(transports)('over %s', (transport) => {
    let clients: Clients | undefined;
    cases({
      clock,
      transport,
      get clients() {
        clients ??= server.clients(transport);
        return clients;
      },
      clientsFor: (key) => server.clients(transport, key),
      freshIp: () => `198.51.${TRANSPORTS.indexOf(transport)}.${ip++}`,
    });
  });
}

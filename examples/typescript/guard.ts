/** A backend that lets in whose key is good for traces:read. */
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Duration } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { ApiKeyAuth, Decision, DecisionSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';

const DEADLINE_MS = 500;
const ATTEMPTS = 3;

const ownKey = readFileSync(process.env.APIKEYD_KEY_FILE ?? '', 'utf8').trim();
const address = process.env.APIKEYD_ADDRESS ?? '127.0.0.1:50051';
const apikeyd = createClient(ApiKeyAuth, createGrpcTransport({ baseUrl: `http://${address}` }));

interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: object;
}

/** UNAVAILABLE says that no decision was made, so asking again is safe. The cost is taken by a decision only. */
async function validate(key: string, clientIp: string) {
  const end = Date.now() + DEADLINE_MS;
  const headers = { authorization: `Bearer ${ownKey}` };
  for (let attempt = 1; ; attempt++) {
    try {
      const timeoutMs = Math.max(1, end - Date.now());
      return await apikeyd.validateKey(
        { key, requiredScope: 'traces:read', clientIp },
        { headers, timeoutMs },
      );
    } catch (error) {
      if (attempt === ATTEMPTS || ConnectError.from(error).code !== Code.Unavailable) throw error;
      await delay(50 * 2 ** attempt * Math.random());
    }
  }
}

async function decide(key: string, clientIp: string): Promise<Reply> {
  let answer: Awaited<ReturnType<typeof validate>>;
  try {
    answer = await validate(key, clientIp);
  } catch (error) {
    const [info] = ConnectError.from(error).findDetails(RetryInfoSchema);
    return { status: 503, headers: retryAfter(info?.retryDelay), body: { error: 'no decision' } };
  }
  const { decision, valid, rateLimits } = answer;
  const [limit] = rateLimits;
  if (valid)
    return {
      status: 200,
      ...(limit === undefined ? {} : { headers: { 'ratelimit-remaining': String(limit.remaining) } }),
      body: { traces: [] },
    };
  const body = { error: DecisionSchema.value[decision]?.name.replace('DECISION_', '') ?? '' };
  if (decision === Decision.MALFORMED || decision === Decision.NOT_FOUND)
    return { status: 401, headers: { 'www-authenticate': 'Bearer' }, body };
  if (decision === Decision.RATE_LIMITED || decision === Decision.LOCKED_OUT)
    return { status: 429, headers: retryAfter(answer.retryAfter), body };
  return { status: 403, body };
}

function retryAfter(wait: Duration | undefined): Record<string, string> {
  return wait === undefined
    ? {}
    : { 'retry-after': String(Math.ceil(Number(wait.seconds) + wait.nanos / 1e9)) };
}

function reply(request: IncomingMessage): Promise<Reply> | Reply {
  const key = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (key === undefined)
    return { status: 401, headers: { 'www-authenticate': 'Bearer' }, body: { error: 'send a key' } };
  return decide(key, request.socket.remoteAddress ?? '');
}

const server = createServer((request, response) => {
  void Promise.resolve(reply(request)).then(({ status, headers, body }) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body)),
  );
});
server.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () => {
  process.stdout.write(`listening on ${(server.address() as AddressInfo).port}\n`);
});

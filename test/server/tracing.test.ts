// If this fails, spans are missing or not in the caller's trace, contain secrets or addresses, or slow untraced calls.
import { join } from 'node:path';
import { createClient, type Interceptor } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { beforeAll, describe, expect, it } from 'vitest';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { readConfig } from '../../src/config.ts';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { otlpReceiver, type ReceivedSpan } from '../support/otlp-receiver.ts';
import { run } from '../support/process.ts';
import { freshDatabase, startServer, type TestServer, type TransportName } from '../support/server.ts';
import { ROOT } from '../support/tools.ts';

const METHOD = 'apikey.v1.ApiKeyAuth/ValidateKey';
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const PARENT = '00f067aa0ba902b7';
const CLIENT_IP = '203.0.113.77';
type Receiver = Awaited<ReturnType<typeof otlpReceiver>>;

/** A server that sends its traces to its own receiver, at the latest when it stops. */
async function traced(settings: Record<string, string> = {}, path = '') {
  const receiver = await otlpReceiver();
  const database = freshDatabase('sqlite', '');
  const to = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.endpoint + path };
  const server = await startServer(database.url, database.folder, { ...to, ...settings });
  const end = async () => {
    await server.stop();
    await receiver.stop();
    await database.drop();
  };
  return { receiver, server, end };
}

/** A client with its own trace. */
function within(server: TestServer, traceparent: string) {
  const header: Interceptor = (next) => (request) => {
    if (traceparent !== '') request.header.set('traceparent', traceparent);
    request.header.set('authorization', `Bearer ${server.adminKey}`);
    return next(request);
  };
  const baseUrl = `http://127.0.0.1:${server.running.ports.grpc}`;
  return createClient(ApiKeyAuth, createGrpcTransport({ baseUrl, interceptors: [header] }));
}

describe('a server with a receiver of traces', () => {
  let receiver: Receiver;
  let server: TestServer;
  let secret: string;
  const calls: Record<string, string> = {};
  const named = (name: string) => receiver.spans.filter((span) => span.name === name);
  const ofTrace = (traceId: string) => receiver.spans.filter((span) => span.traceId === traceId);
  const under = ({ spanId }: ReceivedSpan) => receiver.spans.filter(({ parentId }) => parentId === spanId);

  beforeAll(async () => {
    const headers = 'x-team=keys%20and%20more';
    const started = await traced({ OTEL_EXPORTER_OTLP_HEADERS: headers, OTEL_SERVICE_NAME: 'keys' });
    ({ receiver, server } = started);
    const clients = server.clients('grpc');
    ({ secret } = await makeKey(clients));
    const sampled = within(server, `00-${TRACE}-${PARENT}-01`);
    expect((await sampled.validateKey({ key: secret, clientIp: CLIENT_IP })).valid).toBe(true);
    // A denial that leaves a fingerprint in the audit, one of a known key, and an error.
    for (const [name, key, requiredScope] of [
      ['NOT_FOUND', `audit_v1_${'n'.repeat(22)}`, 'a:b'],
      ['INSUFFICIENT_SCOPE', secret, 'a:b'],
    ] as const) {
      calls[name] = name.length.toString(16).padStart(32, 'c');
      await within(server, `00-${calls[name]}-${PARENT}-01`).validateKey({
        key,
        requiredScope,
        clientIp: CLIENT_IP,
      });
    }
    calls.error = 'e'.repeat(32);
    await within(server, `00-${calls.error}-${PARENT}-01`)
      .validateKey({ key: secret, requiredScope: '*' })
      .catch(() => {});
    calls.unsampled = 'd'.repeat(32);
    await within(server, `00-${calls.unsampled}-${PARENT}-00`).validateKey({ key: secret });
    for (const transport of ['connect-json', 'grpc-web'] satisfies TransportName[])
      expect(await decisionOf(server.clients(transport), secret)).toBe('VALID');
    await clients.auth.batchValidateKeys({ requests: [{ key: secret }, { key: 'short' }] });
    await fetch(`http://127.0.0.1:${server.running.ports.http}/auth?scope=a:b`, {
      headers: { authorization: `Bearer ${secret}`, 'x-apikeyd-authorization': `Bearer ${server.adminKey}` },
    });
    await server
      .clients('grpc', secret)
      .auth.validateKey({ key: secret })
      .catch(() => {});
    await started.end();
  });

  it('continues the trace of its caller, in a span with the RPC conventions', () => {
    const [span, ...more] = ofTrace(TRACE).filter(({ name }) => name === METHOD);
    expect(more).toEqual([]);
    expect(span).toMatchObject({ parentId: PARENT, kind: 2, status: 1 });
    expect(span?.attributes).toEqual({
      'rpc.system.name': 'grpc',
      'rpc.method': METHOD,
      'rpc.response.status_code': 'OK',
      'apikeyd.decision': 'VALID',
      'apikeyd.key_id': expect.stringMatching(/^uid-apikey-/),
    });
    expect(span?.resource).toMatchObject({ 'service.name': 'keys', 'service.version': '0.1.0' });
    expect(receiver.headers[0]?.['x-team']).toBe('keys and more');
  });

  it('shows the wait for the audit inside the call, between its beginning and its end', () => {
    const [span] = ofTrace(TRACE).filter(({ name }) => name === METHOD);
    if (span === undefined) return expect.fail('no span');
    const [audit] = under(span);
    expect(under(span).map(({ name }) => name)).toEqual(['audit']);
    expect(audit?.start).toBeGreaterThanOrEqual(span.start);
    expect(audit?.end).toBeLessThanOrEqual(span.end);
    const [create] = named('apikey.v1.ApiKeyAdmin/CreateKey');
    expect(create && under(create).map(({ name }) => name)).toContain('store insert_keys');
  });

  it('reports a denial as an OK span with the decision, and an error with its code and reason', () => {
    for (const decision of ['NOT_FOUND', 'INSUFFICIENT_SCOPE']) {
      const [span] = ofTrace(calls[decision] ?? '').filter(({ name }) => name === METHOD);
      expect(span).toMatchObject({ status: 1, attributes: { 'apikeyd.decision': decision } });
    }
    const [error] = ofTrace(calls.error ?? '').filter(({ name }) => name === METHOD);
    // The caller's fault: no error of the server.
    expect(error?.status).toBe(0);
    expect(error?.attributes).toMatchObject({
      'rpc.response.status_code': 'INVALID_ARGUMENT',
      'error.type': 'INVALID_ARGUMENT',
      'apikeyd.reason': 'INVALID_REQUEST',
    });
    const denied = named(METHOD).filter(({ attributes }) => attributes['apikeyd.reason'] === 'SCOPE_MISSING');
    expect(denied).toHaveLength(1);
  });

  it('leaves out calls that their caller does not sample, on every transport', () => {
    expect(ofTrace(calls.unsampled ?? '')).toEqual([]);
    // gRPC four times and refused once; Connect; gRPC-Web.
    expect(named(METHOD)).toHaveLength(7);
    expect(named('http/auth').map(({ attributes }) => attributes['apikeyd.decision'])).toEqual([
      'INSUFFICIENT_SCOPE',
    ]);
    const [batch] = named('apikey.v1.ApiKeyAuth/BatchValidateKeys');
    expect(batch?.attributes['apikeyd.decision']).toEqual(['VALID', 'MALFORMED']);
  });

  it('exports no secret, fingerprint or address', () => {
    const sent = Buffer.concat(receiver.bodies).toString('latin1');
    expect(sent).toContain(METHOD);
    for (const text of [secret, server.adminKey, 'n'.repeat(22), CLIENT_IP, '127.0.0.1', 'fingerprint'])
      expect(sent).not.toContain(text);
  });
});

describe('traces', () => {
  it('without a reachable receiver cause one warning, and calls continue', async () => {
    const { server, end } = await traced({}, '/no-receiver');
    const { secret } = await makeKey(server.clients('grpc'));
    expect(await decisionOf(server.clients('grpc'), secret)).toBe('VALID');
    await end();
    const warned = server.log.filter((line) => line.includes('traces cannot be sent'));
    expect(warned).toHaveLength(1);
  });

  it('add their id to the log lines of a call', async () => {
    const { server, end } = await traced();
    const secret = `audit_v1_${'q'.repeat(22)}`;
    const client = within(server, `00-${TRACE}-${PARENT}-01`);
    for (let i = 0; i < 5; i++) await client.validateKey({ key: secret, clientIp: CLIENT_IP });
    await end();
    const line = server.log.find((text) => text.includes('is locked out after'));
    expect(JSON.parse(line ?? '{}')).toMatchObject({ trace_id: TRACE });
    expect(server.log.filter((text) => text.includes('listening') && text.includes('trace_id'))).toEqual([]);
  });

  // Four calls, each of another method and with another parent.
  type Caller = ReturnType<typeof within>;
  const CALLS: [method: string, traceparent: string, call: (on: Caller) => Promise<unknown>][] = [
    ['WhoAmI', '', (on) => on.whoAmI({})],
    ['ValidateKey', 'zz', (on) => on.validateKey({ key: 'k' })],
    [
      'BatchValidateKeys',
      `00-${TRACE}-${PARENT}-01`,
      (on) => on.batchValidateKeys({ requests: [{ key: 'k' }] }),
    ],
    ['RevokeOwnKey', `00-${TRACE}-${PARENT}-00`, (on) => on.revokeOwnKey({ key: 'k' }).catch(() => {})],
  ];
  const roots = ['ValidateKey', 'WhoAmI'];
  it.each([
    ['always_on', '0', ['BatchValidateKeys', 'RevokeOwnKey', ...roots]],
    ['always_off', '1', []],
    ['traceidratio', '0', []],
    ['traceidratio', '1', ['BatchValidateKeys', 'RevokeOwnKey', ...roots]],
    ['parentbased_always_on', '0', ['BatchValidateKeys', ...roots]],
    ['parentbased_always_off', '1', ['BatchValidateKeys']],
    ['parentbased_traceidratio', '0', ['BatchValidateKeys']],
    ['parentbased_traceidratio', '1', ['BatchValidateKeys', ...roots]],
  ])('by OTEL_TRACES_SAMPLER=%s with the argument %s are of %j', async (name, share, methods) => {
    const settings = { OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: share };
    const { receiver, server, end } = await traced(settings);
    for (const [, traceparent, call] of CALLS) await call(within(server, traceparent));
    await end();
    const names = receiver.spans.filter(({ kind }) => kind === 2).map(({ name }) => name.split('/')[1]);
    expect(names.sort()).toEqual(methods);
  });

  it('cost nothing without a receiver: their library is not loaded', async () => {
    // Redis' client looks for the API by itself; the rest is ours.
    const loadedBy = async (file: string) => {
      const script = `
        import { registerHooks } from 'node:module';
        const loaded = [];
        const load = (url, context, next) => {
          if (/@opentelemetry\\/(?!api\\/)/.test(url)) loaded.push(url);
          return next(url, context);
        };
        registerHooks({ load });
        await import(${JSON.stringify(join(ROOT, file))});
        console.log(loaded.length);`;
      const { stdout, stderr } = await run(process.execPath, ['--input-type=module', '-e', script]);
      return Number.parseInt(stdout, 10) || `${stdout}${stderr}`.split('\n')[0];
    };
    expect(await loadedBy('src/server/serve.ts')).toBe('0');
    expect(await loadedBy('src/server/tracing.ts')).toBeGreaterThan(20);
  });

  it.each([
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318'],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'no-value'],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'a=%zz'],
    ['OTEL_TRACES_SAMPLER', 'sometimes'],
    ['OTEL_TRACES_SAMPLER_ARG', '1.5'],
  ])('with %s=%s are an error that names the setting', (name, value) => {
    expect(() => readConfig({ [name]: value })).toThrow(name);
  });
});

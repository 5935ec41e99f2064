import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { type Config, parseAddress } from '../config.ts';
import type { Finding } from '../store/store.ts';

const ANSWER_MS = 2_000;
/** gRPC's OK and UNAUTHENTICATED: Envoy's Check answers with these. */
const ANSWERED = ['0', '16'];
const EMPTY_FRAME = Buffer.alloc(5);
const CHECK = '/envoy.service.auth.v3.Authorization/Check';
/** Certificates need no check: no credential is sent, and the answers are not trusted. */
const ANYBODY = { rejectUnauthorized: false };

type Port = 'GRPC_ADDR' | 'HTTP_ADDR';

/** Sends each proxy endpoint of a running server a request without a credential; reports which ones respond. */
export async function knock(config: Config, port: Port): Promise<Finding[]> {
  if (config.TLS_CLIENT_CA_FILE !== '') {
    const text = 'not tried: TLS_CLIENT_CA_FILE asks for a certificate';
    return [{ what: `doors on ${port}`, ok: true, text }];
  }
  const { host, port: number } = parseAddress(port, config[port]);
  const here = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const authority = `${here.includes(':') ? `[${here}]` : here}:${number}`;
  const base = `${config.TLS_CERT_FILE === '' ? 'http' : 'https'}://${authority}`;
  const doors: readonly (readonly [string, () => Promise<boolean>])[] = [
    ["Envoy's Check", async () => ANSWERED.includes(String((await askCheck(base))['grpc-status']))],
    ['/auth', async () => (await ask(base, 'GET', '/auth')).headers['x-apikey-status'] !== undefined],
    [
      '/introspect',
      async () => [400, 401].includes((await ask(base, 'POST', '/introspect')).statusCode ?? 0),
    ],
  ];
  return Promise.all(
    doors.map(async ([name, answers]) => {
      const what = `${name} on ${port}`;
      try {
        return (await answers())
          ? { what, ok: true, text: 'answers' }
          : { what, ok: false, text: 'answered by something else: is it this server?' };
      } catch (error) {
        return { what, ok: false, text: `does not answer: ${(error as Error).message}` };
      }
    }),
  );
}

function askCheck(base: string): Promise<IncomingHttpHeaders> {
  return new Promise((resolve, reject) => {
    const session = connectHttp2(base, ANYBODY);
    const fail = (error: Error) => {
      session.destroy();
      reject(error);
    };
    session.once('error', fail);
    session.setTimeout(ANSWER_MS, () => fail(new Error(`nothing within ${ANSWER_MS / 1000} s`)));
    const headers = { ':method': 'POST', ':path': CHECK, 'content-type': 'application/grpc', te: 'trailers' };
    const stream = session.request(headers);
    let told: IncomingHttpHeaders = {};
    const note = (headers: IncomingHttpHeaders) => {
      told = { ...told, ...headers };
    };
    stream.on('response', note);
    stream.on('trailers', note);
    stream.once('error', fail);
    stream.once('close', () => {
      session.close();
      resolve(told);
    });
    stream.resume().end(EMPTY_FRAME);
  });
}

function ask(base: string, method: string, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const send = base.startsWith('https') ? httpsRequest : httpRequest;
    const request = send(`${base}${path}`, { method, ...ANYBODY, timeout: ANSWER_MS }, (response) => {
      response.resume().once('end', () => resolve(response));
    });
    request.once('timeout', () => request.destroy(new Error(`nothing within ${ANSWER_MS / 1000} s`)));
    request.once('error', reject).end();
  });
}

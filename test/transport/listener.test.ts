// If this fails, connections that say nothing fill the server, or ones that are in use are cut off.
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { LIMITS } from '../../src/rpc/limits.ts';
import { Http1 } from '../../src/transport/http1.ts';
import { ResponseHeaders, type ServerStream } from '../../src/transport/http2/transport.ts';
import { HttpServer, type TlsFiles } from '../../src/transport/listener.ts';
import { networkOf } from '../../src/transport/peer.ts';
import { StreamThrottle } from '../../src/transport/stream-throttle.ts';
import { selfSigned } from '../support/certificate.ts';
import { HTTP2_SERVER_NAMES, HTTP2_SERVERS, type Http2ServerName } from '../support/http2.ts';

const turn = () => new Promise((resolve) => setImmediate(resolve));
const HALF_HELLO = Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';

for (const http2 of HTTP2_SERVER_NAMES) {
  describe(`a listener, over cleartext, with HTTP2_SERVER=${http2}`, () => listens(http2));
  describe(`a listener, over TLS, with HTTP2_SERVER=${http2}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'listener-'));
    afterAll(() => rmSync(folder, { recursive: true }));
    listens(http2, () => ({ ...selfSigned(folder), clientCa: undefined }));
  });
}

function listens(http2: Http2ServerName, makeTls?: () => TlsFiles): void {
  const kind = makeTls === undefined ? 'cleartext' : 'TLS';
  let tls: TlsFiles | undefined;
  beforeAll(() => {
    tls = makeTls?.();
  });
  let server: HttpServer;
  let port: number;
  /** Bytes of an answer of HTTP/1.1. */
  let answerBytes: number;

  const handlers = {
    stream: (stream: ServerStream) => ({
      data: () => {},
      end: () =>
        stream.respondWhole({
          headers: new ResponseHeaders([[':status', '200']]),
          body: Buffer.from('ok'),
          trailers: new ResponseHeaders([['x-end', 'yes']]),
        }),
      closed: () => {},
    }),
    request: (_request: unknown, response: { end(body: Buffer): void }) =>
      response.end(Buffer.alloc(answerBytes)),
    failed: (error: unknown) => expect.fail(String(error)),
  };
  beforeEach(async () => {
    answerBytes = 2;
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] });
    server = new HttpServer(handlers, new StreamThrottle(), tls, HTTP2_SERVERS[http2]);
    port = await server.listen('127.0.0.1', 0);
  });
  afterEach(() => {
    server.close();
    vi.useRealTimers();
  });

  const connectH2 = () =>
    connectHttp2(`${kind === 'TLS' ? 'https' : 'http'}://127.0.0.1:${port}`, { ca: tls?.cert });
  const connectRaw = async (protocol = 'http/1.1'): Promise<Socket> => {
    const socket =
      kind === 'TLS'
        ? connectTls({ port, host: '127.0.0.1', ca: tls?.cert, ALPNProtocols: [protocol] })
        : connectTcp(port, '127.0.0.1');
    socket.on('error', () => {});
    await once(socket, kind === 'TLS' ? 'secureConnect' : 'connect');
    return socket;
  };
  const ask = async (session: ClientHttp2Session) => {
    const stream = session.request({ ':path': '/' }).setEncoding('utf8');
    let body = '';
    for await (const part of stream) body += part;
    return body;
  };
  /** Seconds pass, and what they bring about is sent and answered. */
  const pass = async (ms: number) => {
    for (let at = 0; at < ms; at += LIMITS.tickMs) {
      vi.advanceTimersByTime(LIMITS.tickMs);
      for (let i = 0; i < 5; i++) await turn();
    }
  };

  it('a session that is silent for two minutes, and whose client answers pings, still serves', async () => {
    const session = connectH2();
    expect(await ask(session)).toBe('ok');
    // Each ping has its answer before the next second.
    for (let minute = 0; minute < 2; minute++) {
      const pinged = once(session, 'ping');
      await pass(LIMITS.keepaliveMs);
      await pinged;
      const back = new Promise((resolve) => session.ping(resolve));
      await back;
    }
    expect(await ask(session)).toBe('ok');
    session.destroy();
  });

  it.runIf(process.env.LONG)(
    'a session that is silent for two minutes of real time still serves',
    async () => {
      vi.useRealTimers();
      server.close();
      server = new HttpServer(handlers, new StreamThrottle(), tls, HTTP2_SERVERS[http2]);
      port = await server.listen('127.0.0.1', 0);
      const session = connectH2();
      expect(await ask(session)).toBe('ok');
      await new Promise((resolve) => setTimeout(resolve, 121_000));
      expect(await ask(session)).toBe('ok');
      session.destroy();
    },
    150_000,
  );

  it('a connection that says nothing is let go', async () => {
    const socket = await connectRaw('h2');
    const closed = once(socket.resume(), 'close');
    // With TLS its handshake was something; the preface is what is missing then.
    while (socket.bytesRead === 0 && kind === 'TLS') await turn();
    await pass(LIMITS.silentConnectionMs + 2 * LIMITS.tickMs);
    await closed;
  });

  it.each([
    ['nothing', Buffer.alloc(0)],
    // The beginning of a ClientHello of TLS 1.2: 512 bytes are promised. Without TLS three bytes, which tell nothing.
    ['half of what it begins with', kind === 'TLS' ? HALF_HELLO : HALF_HELLO.subarray(0, 3)],
  ])('a client that sends %s has its place until it is let go', async (_what, bytes) => {
    const socket = connectTcp(port, '127.0.0.1').on('error', () => {});
    await once(socket, 'connect');
    const closed = once(socket.resume(), 'close');
    socket.write(bytes);
    while (server.connections.open === 0) await turn();
    await pass(LIMITS.handshakeMs - 2 * LIMITS.tickMs);
    expect(server.connections.open).toBe(1);
    await pass(4 * LIMITS.tickMs);
    await closed;
    while (server.connections.open > 0) await turn();
  });

  it('a client of HTTP/1.1 that reads no answer is let go', async () => {
    answerBytes = 64 << 20;
    const socket = await connectRaw();
    const closed = once(socket, 'close');
    socket.pause();
    socket.write(GET);
    // The answer has begun to leave before time passes.
    await vi.waitUntil(() => socket.readableLength > 0, { timeout: 60_000 });
    await pass(LIMITS.unreadResponseMs + 3 * LIMITS.tickMs);
    socket.resume();
    await closed;
    expect(socket.bytesRead).toBeLessThan(answerBytes);
  });

  it('a client of HTTP/1.1 that asks a thousand times and reads nothing is answered once', async () => {
    answerBytes = 64 << 20;
    const socket = await connectRaw();
    const closed = once(socket, 'close');
    socket.write(GET.repeat(1_000));
    socket.resume();
    await closed;
    expect(socket.bytesRead).toBeLessThan(2 * answerBytes);
  });

  it('requests that wait for the answer before them are answered in turn', async () => {
    const socket = await connectRaw();
    socket.write(GET.repeat(LIMITS.pipelinedRequests));
    let got = '';
    socket.on('data', (part: Buffer) => (got += part.toString()));
    await vi.waitUntil(() => got.split('HTTP/1.1 200').length === LIMITS.pipelinedRequests + 1, {
      timeout: 60_000,
    });
    await server.drain();
    socket.destroy();
  });
}

describe('the limits of HTTP/1.1', () => {
  const http1 = new Http1((_request, response) => void response.end('ok'), {
    ...LIMITS,
    ...{ headersMs: 100, messageMs: 100, tickMs: 20 },
  });
  const server = createServer((socket) => http1.speak(socket));
  beforeAll(async () => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterAll(() => {
    http1.close();
    server.close();
  });

  it.each([
    ['no byte', ''],
    ['half its headers', 'GET / HTTP/1.1\r\nHo'],
  ])('a client that sends %s does not stay', async (_what, bytes) => {
    const socket = connectTcp((server.address() as AddressInfo).port, '127.0.0.1');
    socket.resume().write(bytes);
    await once(socket, 'close');
  });
});

describe('the network of an address', () => {
  it.each([
    ['192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8:1:2::', '2001:db8:1:2::/64'],
    ['::1', '0:0:0:0::/64'],
    ['', ''],
  ])('%s → %s', (ip, network) => {
    expect(networkOf(ip)).toBe(network);
  });
});

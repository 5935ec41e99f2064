import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { afterEach, beforeEach } from 'vitest';
import { LIMITS as SERVER_LIMITS } from '../../src/rpc/limits.ts';
import { encodeHeaders } from '../../src/transport/http2/hpack.ts';
import {
  type Receiver,
  ResponseHeaders,
  type ServerConnection,
  type ServerStream,
} from '../../src/transport/http2/transport.ts';
import { HTTP2_SERVERS, type Http2ServerName } from './http2.ts';

export const FRAME = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  window: 8,
  continuation: 9,
};

export const frame = (type: number, flags: number, id: number, payload: Buffer = Buffer.alloc(0)) => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
};
export const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(FRAME.settings, 0, 0),
]);
export const uint32 = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value]);
/** POST /echo */
export const block = encodeHeaders([
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/echo'],
]);

export const LIMITS = { ...SERVER_LIMITS, streamsPerConnection: 10 };
export const OK = new ResponseHeaders([[':status', '200']]);
export const TRAILERS = new ResponseHeaders([['x-end', 'yes']]);
const REQUEST = { ':method': 'POST', ':path': '/echo' };

/** A server that answers with the body, `/headers` with the headers and `/hold` not by itself; anew for each test. */
export function echoServer(http2: Http2ServerName = 'own') {
  const state = {
    connections: [] as ServerConnection[],
    accepted: [] as Socket[],
    /** What receivers threw. */
    failures: [] as unknown[],
    /** Streams that are not answered. */
    held: [] as ServerStream[],
    /** Streams whose receivers were told that they are closed. */
    lost: 0,
  };
  const echo = (stream: ServerStream): Receiver => {
    const parts: Buffer[] = [];
    return {
      data: (part) => {
        parts.push(Buffer.from(part));
        stream.consumed(part.length);
      },
      end: () => {
        const path = stream.headers.get(':path');
        if (path === '/hold') {
          state.held.push(stream);
          return;
        }
        const fields = [...stream.headers.fields].filter(([name]) => !name.startsWith(':'));
        const body = path === '/headers' ? Buffer.from(JSON.stringify(fields)) : Buffer.concat(parts);
        stream.respondWhole({ headers: OK, body, trailers: TRAILERS });
      },
      closed: () => void state.lost++,
    };
  };
  /** A test may put others in their places. */
  const around = { begin: echo, failed: (_error: unknown) => {}, holdUnread: (_bytes: number) => true };
  let port = 0;
  const server = createServer((socket) => {
    state.accepted.push(socket);
    state.connections.push(new HTTP2_SERVERS[http2](socket, '192.0.2.1', LIMITS, around, 0));
  });
  beforeEach(async () => {
    Object.assign(state, { connections: [], accepted: [], failures: [], held: [], lost: 0 });
    around.begin = echo;
    around.failed = (error) => void state.failures.push(error);
    around.holdUnread = () => true;
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    port = (server.address() as AddressInfo).port;
  });
  afterEach(() => {
    for (const connection of state.connections) connection.destroy();
    server.close();
  });
  const client = (settings = {}) =>
    connectHttp2(`http://127.0.0.1:${port}`, { settings }).on('error', () => {});
  const ask = (session: ClientHttp2Session, body: Buffer, headers = {}) =>
    new Promise<{ body: Buffer; trailers: unknown; rstCode: number }>((resolve) => {
      const stream = session.request({ ...REQUEST, ...headers });
      const parts: Buffer[] = [];
      let trailers: unknown;
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('trailers', (fields) => (trailers = fields['x-end']));
      stream.on('error', () => {});
      stream.on('close', () => resolve({ body: Buffer.concat(parts), trailers, rstCode: stream.rstCode }));
      stream.end(body);
    });
  /** Raw bytes; resolves with the code of the GOAWAY that ends the connection, or that it ended without one. */
  const raw = async (
    ...sent: Buffer[]
  ): Promise<{
    socket: Socket;
    ended: Promise<number | undefined>;
    got: (part: Buffer) => Promise<void>;
  }> => {
    const socket = connectTcp(port, '127.0.0.1');
    socket.on('error', () => {});
    const received: Buffer[] = [];
    socket.on('data', (part: Buffer) => received.push(part));
    await once(socket, 'connect');
    socket.write(Buffer.concat(sent));
    const closed = new Promise((resolve) => socket.on('close', resolve));
    const ended = closed.then(() => {
      const bytes = Buffer.concat(received);
      for (let at = 0; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3))
        if (bytes[at + 3] === FRAME.goAway) return bytes.readUInt32BE(at + 13);
      return undefined;
    });
    const got = async (part: Buffer) => {
      while (!Buffer.concat(received).includes(part)) await once(socket, 'data');
    };
    return { socket, ended, got };
  };
  return { state, around, client, ask, raw };
}

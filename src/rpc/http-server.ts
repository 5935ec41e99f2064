import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import {
  createServer as createHttp2Server,
  createSecureServer,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { LIMITS } from './limits.ts';
import { peerIpOf } from './peer.ts';

export interface TlsFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly clientCa: Buffer | undefined;
}

export type NodeRequest = IncomingMessage | Http2ServerRequest;
export type NodeResponse = ServerResponse | Http2ServerResponse;
export type RequestListener = (request: NodeRequest, response: NodeResponse) => void;
/** Offered every stream of HTTP/2 first; what it leaves becomes a request. */
export type StreamListener = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  peerIp: string,
) => boolean;

const PEER_IP = Symbol('peer ip');
type Kept = ServerHttp2Session & { [PEER_IP]?: string };

const H2_PREFACE = Buffer.from('PRI ');

/** HTTP/1.1 and HTTP/2 on one port, with or without TLS. */
export class HttpServer {
  readonly #server: Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #sockets = new Set<Socket>();
  #underWay = 0;
  #idle: (() => void) | undefined;

  constructor(streams: StreamListener, listener: RequestListener, tls: TlsFiles | undefined) {
    const counted: RequestListener = (request, response) => {
      this.#underWay++;
      response.once('close', () => {
        this.#underWay--;
        if (this.#underWay === 0) this.#idle?.();
      });
      listener(request, response);
    };
    const http2 = {
      settings: { maxConcurrentStreams: LIMITS.streamsPerConnection, maxHeaderListSize: LIMITS.headerBytes },
    };
    if (tls === undefined) {
      this.#server = this.#cleartext(streams, counted, http2);
    } else {
      const { cert, key, clientCa } = tls;
      const mutual =
        clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
      const secure = createSecureServer({ ...http2, allowHTTP1: true, cert, key, ...mutual }, counted);
      this.#offer(secure, streams);
      secure.on('secureConnection', (socket) => this.#track(socket));
      this.#server = secure;
    }
    this.#server.maxConnections = LIMITS.connections;
  }

  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject);
        resolve((this.#server.address() as AddressInfo).port);
      });
    });
  }

  /** Takes no new connections and calls, and waits for the requests under way; the streams of others are theirs. */
  async drain(): Promise<void> {
    this.#server.close();
    for (const session of this.#sessions) session.close();
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  close(): void {
    this.#server.close();
    for (const session of this.#sessions) session.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Without TLS nothing is negotiated: the first bytes tell which protocol a client speaks. */
  #cleartext(streams: StreamListener, listener: RequestListener, options: object): Server {
    const http1 = createServer({ maxHeaderSize: LIMITS.headerBytes }, listener);
    const http2 = createHttp2Server(options, listener);
    this.#offer(http2, streams);
    return createTcpServer((socket) => {
      this.#track(socket);
      socket.on('error', () => socket.destroy());
      socket.setTimeout(LIMITS.silentConnectionMs, () => socket.destroy());
      const decide = () => {
        // Four bytes tell `PRI ` of HTTP/2 from every HTTP/1 method.
        const head: Buffer | null = socket.read(H2_PREFACE.length);
        if (head === null) return;
        socket.off('readable', decide);
        socket.setTimeout(0);
        socket.removeAllListeners('timeout');
        socket.unshift(head);
        (head.equals(H2_PREFACE) ? http2 : http1).emit('connection', socket);
      };
      socket.on('readable', decide);
    });
  }

  /** Node makes a request of every stream; here that is done only with those that `streams` leaves. */
  #offer(server: Http2Server, streams: StreamListener): void {
    const [toRequest] = server.listeners('stream');
    server.removeAllListeners('stream');
    server.on('session', (session) => this.#keep(session));
    server.on('stream', (stream, headers, ...rest) => {
      const peerIp = (stream.session as Kept | undefined)?.[PEER_IP] ?? '';
      if (!streams(stream, headers, peerIp)) toRequest?.call(server, stream, headers, ...rest);
    });
  }

  #keep(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    // Asked for once: each look goes through a proxy of the socket.
    (session as Kept)[PEER_IP] = peerIpOf(session.socket.remoteAddress);
    const keepalive = setInterval(() => {
      const silent = setTimeout(() => session.destroy(), LIMITS.keepaliveTimeoutMs);
      if (!session.ping(() => clearTimeout(silent))) session.destroy();
    }, LIMITS.keepaliveMs);
    session.once('close', () => {
      clearInterval(keepalive);
      this.#sessions.delete(session);
    });
    session.on('error', () => session.destroy());
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }
}

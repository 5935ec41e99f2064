import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import {
  createServer as createHttp2Server,
  createSecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from 'node:http2';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import type { TlsFiles } from './grpc-mount.ts';
import { LIMITS } from './limits.ts';

export type NodeRequest = IncomingMessage | Http2ServerRequest;
export type NodeResponse = ServerResponse | Http2ServerResponse;
export type RequestListener = (request: NodeRequest, response: NodeResponse) => void;

const H2_PREFACE = Buffer.from('PRI ');

/** HTTP/1.1 and HTTP/2 on one port, with or without TLS. */
export class HttpServer {
  readonly #server: Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #sockets = new Set<Socket>();
  #underWay = 0;
  #idle: (() => void) | undefined;

  constructor(listener: RequestListener, tls: TlsFiles | undefined) {
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
      this.#server = this.#cleartext(counted, http2);
    } else {
      const { cert, key, clientCa } = tls;
      const mutual =
        clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
      const secure = createSecureServer({ ...http2, allowHTTP1: true, cert, key, ...mutual }, counted);
      secure.on('session', (session) => this.#keep(session));
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

  /** Takes no new connections and waits for the requests under way. */
  async drain(): Promise<void> {
    this.#server.close();
    for (const session of this.#sessions) session.close();
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.close();
  }

  close(): void {
    this.#server.close();
    for (const session of this.#sessions) session.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Without TLS nothing is negotiated: the first bytes tell which protocol a client speaks. */
  #cleartext(listener: RequestListener, options: object): Server {
    const http1 = createServer({ maxHeaderSize: LIMITS.headerBytes }, listener);
    const http2 = createHttp2Server(options, listener);
    http2.on('session', (session) => this.#keep(session));
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

  #keep(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
    session.on('error', () => session.destroy());
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }
}

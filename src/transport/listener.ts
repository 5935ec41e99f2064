import {
  createServer as createHttpServer,
  type Server as Http1Server,
  type RequestListener,
} from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { LIMITS } from '../rpc/limits.ts';
import { Http2Connection } from './http2/connection.ts';
import type { Receiver, ServerStream } from './http2/stream.ts';
import { peerIpOf } from './peer.ts';
import type { StreamThrottle } from './stream-throttle.ts';

export interface TlsFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly clientCa: Buffer | undefined;
}

export interface HttpHandlers {
  /** Of HTTP/2. */
  readonly stream: (stream: ServerStream) => Receiver;
  /** Of HTTP/1.1. */
  readonly request: RequestListener;
}

const H2_PREFACE = Buffer.from('PRI ');

/** HTTP/1.1 and HTTP/2 on one port, with or without TLS. */
export class HttpServer {
  readonly #server: Server;
  readonly #http1: Http1Server;
  readonly #handlers: HttpHandlers;
  readonly #throttle: StreamThrottle;
  readonly #connections = new Set<Http2Connection>();
  readonly #sockets = new Set<Socket>();
  #underWay = 0;
  #idle: (() => void) | undefined;

  constructor(handlers: HttpHandlers, throttle: StreamThrottle, tls: TlsFiles | undefined) {
    this.#handlers = handlers;
    this.#throttle = throttle;
    this.#http1 = createHttpServer({ maxHeaderSize: LIMITS.headerBytes }, (request, response) => {
      this.#underWay++;
      response.once('close', () => {
        this.#underWay--;
        if (this.#underWay === 0) this.#idle?.();
      });
      handlers.request(request, response);
    });
    this.#server = tls === undefined ? this.#cleartext() : this.#encrypted(tls);
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

  /** Takes no new connections and calls, and waits for the requests of HTTP/1.1; streams are their receivers' business. */
  async drain(): Promise<void> {
    this.#server.close();
    for (const connection of this.#connections) connection.shutDownGracefully();
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  close(): void {
    this.#server.close();
    for (const connection of this.#connections) connection.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Without TLS nothing is negotiated: the first bytes tell which protocol a client speaks. */
  #cleartext(): Server {
    return createTcpServer({ noDelay: true }, (socket) => {
      this.#track(socket);
      const decide = () => {
        // Four bytes tell `PRI ` of HTTP/2 from every HTTP/1 method.
        const head: Buffer | null = socket.read(H2_PREFACE.length);
        if (head === null) return;
        socket.off('readable', decide);
        socket.unshift(head);
        if (head.equals(H2_PREFACE)) this.#speakHttp2(socket);
        else this.#speakHttp1(socket);
      };
      socket.on('readable', decide);
    });
  }

  #encrypted({ cert, key, clientCa }: TlsFiles): Server {
    const mutual =
      clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
    const options = { cert, key, ...mutual, ALPNProtocols: ['h2', 'http/1.1'], noDelay: true };
    const server = createTlsServer(options, (socket: TLSSocket) => {
      if (socket.alpnProtocol === 'h2') this.#speakHttp2(socket);
      else this.#speakHttp1(socket);
    });
    server.on('connection', (socket: Socket) => this.#track(socket));
    return server;
  }

  /** A socket that says nothing is let go of; one that breaks harms nobody. */
  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    socket.setTimeout(LIMITS.silentConnectionMs, () => socket.destroy());
  }

  #speakHttp1(socket: Socket): void {
    socket.setTimeout(0);
    socket.removeAllListeners('timeout');
    this.#http1.emit('connection', socket);
  }

  #speakHttp2(socket: Socket): void {
    const peerIp = peerIpOf(socket.remoteAddress);
    const connection = new Http2Connection(socket, peerIp, LIMITS, this.#handlers.stream);
    this.#connections.add(connection);
    this.#throttle.add(connection);
    socket.setTimeout(0);
    const keepalive = setInterval(() => connection.keepAlive(LIMITS.keepaliveTimeoutMs), LIMITS.keepaliveMs);
    const settle = setTimeout(() => {
      if (!connection.receivedSettings) connection.destroy();
    }, LIMITS.silentConnectionMs);
    socket.once('close', () => {
      clearTimeout(settle);
      clearInterval(keepalive);
      this.#connections.delete(connection);
      this.#throttle.delete(connection);
    });
  }
}

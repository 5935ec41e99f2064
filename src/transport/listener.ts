import type { RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, Server as TlsServer } from 'node:tls';
import { LIMITS } from '../rpc/limits.ts';
import { Http1 } from './http1.ts';
import type { Http2Transport, Receiver, ServerConnection, ServerStream } from './http2/transport.ts';
import { networkOf, peerIpOf } from './peer.ts';
import { Shares } from './shares.ts';
import { Sockets } from './sockets.ts';
import type { StreamThrottle } from './stream-throttle.ts';

export interface TlsFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly clientCa: Buffer | undefined;
}

export interface HttpHandlers {
  /** Serves a stream of HTTP/2. */
  readonly stream: (stream: ServerStream) => Receiver;
  /** Serves a request of HTTP/1.1. */
  readonly request: RequestListener;
  /** Called with errors that no handler caught. */
  readonly failed: (error: unknown) => void;
}

const H2_PREFACE = Buffer.from('PRI ');

/** Serves HTTP/1.1 and HTTP/2 on one port, with or without TLS. */
export class HttpServer {
  readonly #server: Server;
  readonly #http1: Http1;
  readonly #handlers: HttpHandlers;
  readonly #throttle: StreamThrottle;
  readonly #http2: Http2Transport;
  readonly #connections = new Set<ServerConnection>();
  readonly #sockets = new Sockets();
  readonly #unread = new Shares(LIMITS.unreadBytes);
  readonly #ticking: NodeJS.Timeout;
  /** Connections refused by the limit of all connections. */
  #dropped = 0;
  /** Time in ms, counted in ticks: a blocked event loop makes no peer late. */
  #now = 0;

  constructor(
    handlers: HttpHandlers,
    throttle: StreamThrottle,
    tls: TlsFiles | undefined,
    http2: Http2Transport,
  ) {
    this.#handlers = handlers;
    this.#throttle = throttle;
    this.#http2 = http2;
    this.#http1 = new Http1(handlers.request);
    this.#server = tls === undefined ? this.#cleartext() : this.#encrypted(tls);
    this.#server.maxConnections = LIMITS.connections;
    this.#server.on('drop', () => this.#dropped++);
    this.#ticking = setInterval(() => this.#tick(), LIMITS.tickMs).unref();
  }

  /** The open connections, and those refused since the start because there were too many. */
  get connections(): { readonly open: number; readonly refused: number } {
    return { open: this.#sockets.count, refused: this.#sockets.refused + this.#dropped };
  }

  /** Replaces the certificates for new connections; whether clients need one does not change. */
  useTls({ cert, key, clientCa: ca }: TlsFiles): void {
    if (this.#server instanceof TlsServer) this.#server.setSecureContext({ cert, key, ca });
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

  /** Accepts no new connections and calls, and waits for requests of HTTP/1.1. The receivers track their streams. */
  async drain(): Promise<void> {
    this.#server.close();
    for (const connection of this.#connections) connection.shutDownGracefully();
    await this.#http1.drained();
  }

  close(): void {
    clearInterval(this.#ticking);
    this.#server.close();
    this.#http1.close();
    for (const connection of this.#connections) connection.destroy();
    this.#sockets.close();
  }

  #tick(): void {
    this.#now += LIMITS.tickMs;
    this.#sockets.tick(this.#now);
    for (const connection of this.#connections) connection.tick(this.#now);
  }

  #cleartext(): Server {
    return createTcpServer({ noDelay: true }, (socket) => {
      this.#sockets.accept(socket, this.#now + LIMITS.silentConnectionMs);
      const decide = () => {
        // No HTTP/1 request begins with the first four bytes of the preface, 'PRI '.
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
    const options = {
      ...{ cert, key, ...mutual, ALPNProtocols: ['h2', 'http/1.1'] },
      noDelay: true,
    };
    const server = createTlsServer(options, (socket: TLSSocket) => {
      if (socket.alpnProtocol === 'h2') this.#speakHttp2(socket);
      else this.#speakHttp1(socket);
    });
    server.on('connection', (socket: Socket) => this.#sockets.accept(socket, this.#now + LIMITS.handshakeMs));
    return server;
  }

  #speakHttp1(socket: Socket): void {
    this.#sockets.speaks(socket, this.#now);
    this.#http1.speak(socket);
  }

  #speakHttp2(socket: Socket): void {
    this.#sockets.speaks(socket, this.#now);
    const peerIp = peerIpOf(socket.remoteAddress);
    const network = networkOf(peerIp);
    const around = {
      begin: this.#handlers.stream,
      failed: this.#handlers.failed,
      holdUnread: (bytes: number) => {
        this.#unread.add(socket, network, bytes);
        return bytes <= 0 || !(this.#unread.isExceededBy(socket, network) || this.#unread.isExceeded);
      },
    };
    const connection = new this.#http2(socket, peerIp, LIMITS, around, this.#now);
    this.#connections.add(connection);
    this.#throttle.add(connection);
    socket.once('close', () => {
      this.#connections.delete(connection);
      this.#throttle.delete(connection);
    });
  }
}

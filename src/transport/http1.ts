import {
  createServer,
  type Server as Http1Server,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { LIMITS } from '../rpc/limits.ts';

type Turn = () => void;
type Http1Limits = Record<
  'headerBytes' | 'headersMs' | 'messageMs' | 'http1IdleMs' | 'tickMs' | 'pipelinedRequests',
  number
>;

/** Serves HTTP/1.1 by Node's server, on sockets that the listener accepted. */
export class Http1 {
  readonly #server: Http1Server;
  readonly #serve: RequestListener;
  readonly #pipelined: number;
  /** By connection: the requests that wait for the previous response. */
  readonly #waiting = new Map<Socket, Turn[]>();
  #idle: (() => void) | undefined;

  constructor(serve: RequestListener, limits: Http1Limits = LIMITS) {
    this.#serve = serve;
    this.#pipelined = limits.pipelinedRequests;
    const options = {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.headersMs + limits.messageMs,
      keepAliveTimeout: limits.http1IdleMs,
      connectionsCheckingInterval: limits.tickMs,
    };
    this.#server = createServer(options, (request, response) => this.#arrived(request, response));
    // Node checks for late requests only after this event, and this server never listens itself.
    this.#server.emit('listening');
  }

  speak(socket: Socket): void {
    this.#server.emit('connection', socket);
  }

  /** Resolves when no request is in flight. */
  async drained(): Promise<void> {
    if (this.#waiting.size > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  close(): void {
    this.#server.close();
  }

  /** Serves one request of a connection at a time: unread responses must not accumulate. */
  #arrived(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const turn = () => {
      response.once('close', () => this.#next(socket));
      this.#serve(request, response);
    };
    const waiting = this.#waiting.get(socket);
    if (waiting === undefined) {
      this.#waiting.set(socket, []);
      turn();
    } else if (waiting.push(turn) > this.#pipelined) socket.destroy();
  }

  #next(socket: Socket): void {
    const turn = socket.destroyed ? undefined : this.#waiting.get(socket)?.shift();
    if (turn !== undefined) {
      turn();
      return;
    }
    this.#waiting.delete(socket);
    if (this.#waiting.size === 0) this.#idle?.();
  }
}

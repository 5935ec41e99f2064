import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** Undefined without a body. */
  readonly json: unknown;
}

export interface Reply {
  readonly status: number;
  readonly headers?: Record<string, string>;
  /** Text is sent as it is. */
  readonly body?: unknown;
}

/** The fault of the next request; after: the request takes effect, and then its response is lost. */
export type Fault =
  | 'silent'
  | 'dropped'
  | 'dropped after'
  | '500'
  | 'malformed'
  | 'half'
  | 'redirect'
  | 'huge';

/** A server in place of a real one. It records every request for the test. */
export class HttpDouble {
  readonly seen: Seen[] = [];
  #fault: Fault | undefined;
  /** Requests until the fault. */
  #skip = 0;
  /** The target of a redirect, which must not be followed. */
  elsewhere = '';
  readonly #answer: (request: Seen) => Reply;
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  constructor(answer: (request: Seen) => Reply) {
    this.#answer = answer;
  }

  /** The request after `skip` others meets this. */
  fail(fault: Fault, skip = 0): void {
    this.#fault = fault;
    this.#skip = skip;
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const url = new URL(request.url ?? '/', 'http://double');
    const seen: Seen = {
      method: request.method ?? '',
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers as Seen['headers'],
      json: text === '' ? undefined : JSON.parse(text),
    };
    this.seen.push(seen);
    const due = this.#fault !== undefined && this.#skip-- === 0;
    const fault = due ? this.#fault : undefined;
    if (due) this.#fault = undefined;
    if (fault === 'silent') return;
    if (fault === 'dropped') return void request.socket.destroy();
    if (fault === '500') return void response.writeHead(500).end('{"message":"boom"}');
    if (fault === 'redirect') return void response.writeHead(302, { location: this.elsewhere }).end();
    if (fault === 'huge') return void response.writeHead(200).end(`"${'x'.repeat(5 << 20)}"`);
    const { status, headers = {}, body } = this.#answer(seen);
    if (fault === 'dropped after') return void request.socket.destroy();
    const sent = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
    if (fault === 'malformed') return void response.writeHead(status, headers).end('<html>hello</html>');
    if (fault === 'half') return void response.writeHead(status, headers).end(sent.slice(0, sent.length / 2));
    const type = { 'content-type': 'application/json', ...headers };
    response.writeHead(status, type).end(sent);
  }
}

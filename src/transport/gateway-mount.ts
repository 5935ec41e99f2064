import type { Door, WebRequest, WebResponse } from '../gateways/door.ts';
import { ApiError } from '../keys/errors.ts';
import type { Exchange } from './exchange.ts';

/** The plain HTTP endpoints for proxies. */
export class GatewayMount {
  readonly #doors: ReadonlyMap<string, Door>;

  constructor(doors: readonly Door[]) {
    this.#doors = new Map(doors.map((door) => [door.path, door]));
  }

  /** Serves a request for one of the doors; false for any other path. */
  async handle(exchange: Exchange): Promise<boolean> {
    const door = this.#doors.get(exchange.path);
    if (door === undefined) return false;
    try {
      await respond(exchange, await door.respond(new DoorRequest(exchange)));
    } catch {
      // The client disconnected during the response.
      exchange.abort();
    }
    return true;
  }
}

class DoorRequest implements WebRequest {
  readonly #exchange: Exchange;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  get method(): string {
    return this.#exchange.method;
  }

  get query(): string {
    return this.#exchange.query;
  }

  get peerIp(): string {
    return this.#exchange.peerIp;
  }

  readonly header = (name: string) => this.#exchange.header(name);

  async body(mostBytes: number): Promise<string | undefined> {
    try {
      return Buffer.from(await this.#exchange.receive(mostBytes)).toString();
    } catch (error) {
      if (error instanceof ApiError && error.code === 'MESSAGE_TOO_LARGE') return undefined;
      throw error;
    }
  }
}

function respond(exchange: Exchange, { status, headers, body }: WebResponse): Promise<void> {
  const bytes = Buffer.from(body);
  const header = new Headers({ 'content-length': String(bytes.length) });
  for (const [name, value] of headers) header.append(name, value);
  return exchange.respond(bytes.length === 0 ? { status, header } : { status, header, body: once(bytes) });
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}

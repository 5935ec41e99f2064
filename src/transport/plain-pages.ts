import openapi from '../../gen/openapi.json' with { type: 'json' };
import type { Clock } from '../keys/ports/clock.ts';
import type { Exchange } from './exchange.ts';
import type { Health } from './health.ts';

/** One buffer for all responses: unread responses hold no copies. */
const OPENAPI = Buffer.from(JSON.stringify(openapi));

interface Page {
  readonly status: number;
  readonly type: string;
  readonly body: Buffer;
}

/** The plain HTTP pages for load balancers and for people. */
export class PlainPages {
  readonly #health: Health;
  readonly #clock: Pick<Clock, 'now'>;

  constructor(health: Health, clock: Pick<Clock, 'now'>) {
    this.#health = health;
    this.#clock = clock;
  }

  async handle(exchange: Exchange): Promise<void> {
    const { status, type, body } = this.#page(exchange.path);
    try {
      const header = new Headers({ 'content-type': type, date: new Date(this.#clock.now()).toUTCString() });
      await exchange.respond({ status, header, body: bytesOf(body) });
    } catch {
      // The client disconnected.
      exchange.abort();
    }
  }

  #page(path: string): Page {
    const plain = (status: number, text: string) => ({ status, type: 'text/plain', body: Buffer.from(text) });
    if (path === '/healthz') return this.#health.alive ? plain(200, 'ok\n') : plain(503, 'broken\n');
    if (path === '/openapi.json') return { status: 200, type: 'application/json', body: OPENAPI };
    if (path !== '/readyz') return plain(404, 'not found\n');
    return this.#health.serving ? plain(200, 'ready\n') : plain(503, 'not ready\n');
  }
}

async function* bytesOf(body: Buffer): AsyncGenerator<Uint8Array, void> {
  yield body;
}

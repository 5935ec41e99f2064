import { LIMITS } from '../rpc/limits.ts';

const TICK_MS = 100;
/** Ticks without a refusal until the limit is back to normal. */
const QUIET_TICKS = 50;
/** The share of the calls in flight that all connections together may use while calls are refused. */
const SHARE = 0.75;

/** A connection whose calls in flight can be limited. */
export interface Throttled {
  /** Whether it has calls in flight. */
  readonly busy: boolean;
  limitStreams(streams: number): void;
}

/**
 * While calls are refused, tells clients to have fewer in flight: a call that waits at its client costs the server
 * nothing, a refusal a fifth of a call. The limit is a hint: calls above it are refused as before. Idle connections get
 * no share: a thousand of them must not leave one stream each to the busy ones.
 */
export class StreamThrottle {
  /** The limit last sent to each connection. */
  readonly #connections = new Map<Throttled, number>();
  #limit: number = LIMITS.streamsPerConnection;
  #refused = false;
  #quiet = 0;
  #timer: NodeJS.Timeout | undefined;

  add(connection: Throttled): void {
    this.#connections.set(connection, LIMITS.streamsPerConnection);
  }

  delete(connection: Throttled): void {
    this.#connections.delete(connection);
  }

  /** A call was refused because too many are in flight. */
  refused(): void {
    this.#refused = true;
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref();
  }

  #tick(): void {
    this.#quiet = this.#refused ? 0 : this.#quiet + 1;
    this.#refused = false;
    if (this.#quiet === 0) {
      const busy = [...this.#connections.keys()].filter((connection) => connection.busy);
      const share = Math.floor((SHARE * LIMITS.callsUnderWay) / Math.max(1, busy.length));
      this.#limit = Math.max(1, Math.min(share, LIMITS.streamsPerConnection));
      this.#tell(busy);
    } else if (this.#quiet === QUIET_TICKS) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      this.#limit = LIMITS.streamsPerConnection;
      this.#tell(this.#connections.keys());
    }
  }

  #tell(connections: Iterable<Throttled>): void {
    for (const connection of connections) {
      if (this.#connections.get(connection) === this.#limit) continue;
      this.#connections.set(connection, this.#limit);
      connection.limitStreams(this.#limit);
    }
  }
}

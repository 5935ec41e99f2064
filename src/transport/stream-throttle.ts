import { LIMITS } from '../rpc/limits.ts';

const TICK_MS = 100;
/** Ticks without a refusal until all is as before. */
const QUIET_TICKS = 50;
/** Of the calls that may be under way: what all connections together may ask for while calls are refused. */
const SHARE = 0.75;

/** A connection that can be told how many calls it may have under way. */
export interface Throttled {
  /** Whether it has calls under way now. */
  readonly busy: boolean;
  limitStreams(streams: number): void;
}

/**
 * While calls are refused, tells clients to have fewer under way: what waits at a client costs nothing here, and a
 * refusal costs a fifth of a call. It is a hint; who keeps to the old limit is refused as before. Connections that ask
 * nothing have no share: a thousand of them must not leave one stream each to those that work.
 */
export class StreamThrottle {
  /** What each was told last. */
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

  /** A call was refused because too many are under way. */
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

import { LIMITS } from '../rpc/limits.ts';

const TICK_MS = 100;
/** Ticks without a refusal until all is as before. */
const QUIET_TICKS = 50;
/** Of the calls that may be under way: what all connections together may ask for while calls are refused. */
const SHARE = 0.75;

/** A connection that can be told how many calls it may have under way. */
export interface Throttled {
  limitStreams(streams: number): void;
}

/**
 * While calls are refused, tells clients to have fewer under way: what waits at a client costs nothing here, and a
 * refusal costs a fifth of a call. It is a hint; who keeps to the old limit is refused as before.
 */
export class StreamThrottle {
  readonly #connections = new Set<Throttled>();
  #limit: number = LIMITS.streamsPerConnection;
  #refused = false;
  #quiet = 0;
  #timer: NodeJS.Timeout | undefined;

  add(connection: Throttled): void {
    this.#connections.add(connection);
    if (this.#timer !== undefined) connection.limitStreams(this.#limit);
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
      const share = Math.floor((SHARE * LIMITS.callsUnderWay) / Math.max(1, this.#connections.size));
      this.#set(Math.max(1, Math.min(share, LIMITS.streamsPerConnection)));
    } else if (this.#quiet === QUIET_TICKS) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      this.#set(LIMITS.streamsPerConnection);
    }
  }

  #set(limit: number): void {
    if (limit === this.#limit) return;
    this.#limit = limit;
    for (const connection of this.#connections) connection.limitStreams(limit);
  }
}

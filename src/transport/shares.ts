/** The most bytes that one connection, one network and all connections may hold. */
export interface ShareLimits {
  readonly connection: number;
  readonly network: number;
  readonly all: number;
}

/** Counts held bytes by connection, identified by its object, and by network, identified by its name. */
export class Shares {
  readonly #limits: ShareLimits;
  readonly #connections = new Map<object, number>();
  readonly #networks = new Map<string, number>();
  #all = 0;

  constructor(limits: ShareLimits) {
    this.#limits = limits;
  }

  add(connection: object, network: string, bytes: number): void {
    count(this.#connections, connection, bytes);
    count(this.#networks, network, bytes);
    this.#all += bytes;
  }

  /** Whether the connection or its network holds more than its share. */
  isExceededBy(connection: object, network: string): boolean {
    return (
      (this.#connections.get(connection) ?? 0) > this.#limits.connection ||
      (this.#networks.get(network) ?? 0) > this.#limits.network
    );
  }

  get isExceeded(): boolean {
    return this.#all > this.#limits.all;
  }

  /** The bytes that all connections hold. */
  get bytes(): number {
    return this.#all;
  }
}

function count<K>(held: Map<K, number>, by: K, bytes: number): void {
  const now = (held.get(by) ?? 0) + bytes;
  if (now > 0) held.set(by, now);
  else held.delete(by);
}

/** How much a peer may still send, of a stream or of a connection. What came is given back in large pieces. */
export class ReceiveWindow {
  readonly #size: number;
  #left: number;
  #used = 0;

  constructor(size: number) {
    this.#size = size;
    this.#left = size;
  }

  /** Counts what came; false when it is more than was allowed. */
  take(bytes: number): boolean {
    this.#left -= bytes;
    return this.#left >= 0;
  }

  /** What came is used up: answers what the peer may send again, 0 when that is not worth a frame yet. */
  release(bytes: number): number {
    this.#used += bytes;
    if (this.#used < this.#size / 2) return 0;
    const credit = this.#used;
    this.#left += credit;
    this.#used = 0;
    return credit;
  }
}

/** The bytes a peer may still send on a stream or connection. Consumed bytes are credited in large pieces. */
export class ReceiveWindow {
  readonly #size: number;
  #left: number;
  #used = 0;

  constructor(size: number) {
    this.#size = size;
    this.#left = size;
  }

  /** Counts received bytes; false when the peer exceeded the window. */
  take(bytes: number): boolean {
    this.#left -= bytes;
    return this.#left >= 0;
  }

  /** Counts consumed bytes; returns the credit to send, 0 when it is not worth a frame yet. */
  release(bytes: number): number {
    this.#used += bytes;
    if (this.#used < this.#size / 2) return 0;
    const credit = this.#used;
    this.#left += credit;
    this.#used = 0;
    return credit;
  }
}

/** A socket without a wire: the server's bytes are there at once. */
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';

export class MemorySocket extends EventEmitter {
  readonly #sent: Buffer[] = [];
  #paused = false;
  readonly #held: Buffer[] = [];
  readonly writableLength = 0;
  destroyed = false;
  /** The server has said that it is done. */
  ended = false;

  /** As a server takes it. */
  get asSocket(): Socket {
    return this as unknown as Socket;
  }

  /** Bytes of the client. */
  receive(bytes: Buffer): void {
    if (this.destroyed) return;
    if (this.#paused) this.#held.push(bytes);
    else this.emit('data', bytes);
  }

  /** What the server has sent since, once it has nothing more to do. */
  async taken(): Promise<Buffer> {
    const bytes: Buffer[] = [];
    for (let quiet = 0; quiet < 2; ) {
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#sent.length === 0) quiet++;
      else quiet = 0;
      bytes.push(...this.#sent.splice(0));
    }
    return Buffer.concat(bytes);
  }

  write(bytes: Buffer): boolean {
    this.#sent.push(bytes);
    return true;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    while (!this.#paused && this.#held.length > 0) this.emit('data', this.#held.shift());
  }

  isPaused(): boolean {
    return this.#paused;
  }

  end(): void {
    this.ended = true;
  }

  destroySoon(): void {
    this.destroy();
  }

  destroy(): void {
    this.destroyed = true;
  }
}

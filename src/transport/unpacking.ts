import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { ApiError } from '../keys/errors.ts';
import { LIMITS } from '../rpc/limits.ts';
import { tooLarge, unreadable } from '../rpc/wire.ts';

/** Limits how many messages are decompressed at once: each may grow a thousandfold. */
export class Unpacking {
  #free: number = LIMITS.unpackedAtOnce;
  readonly #waiting: (() => void)[] = [];

  /** Waits for a turn; the returned function ends it and may be called again. */
  async turn(): Promise<() => void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let over = false;
    return () => {
      if (over) return;
      over = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    };
  }

  /** Decompresses gzip up to the size limit of a message; fails if it is no longer needed when its turn comes. */
  async gunzip(packed: Uint8Array, isWanted: () => boolean): Promise<Uint8Array> {
    const leave = await this.turn();
    try {
      if (!isWanted()) throw new ApiError('REQUEST_NOT_RECEIVED', 'the client went away');
      return await promisify(gunzip)(packed, { maxOutputLength: LIMITS.messageBytes });
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE' ? tooLarge() : unreadable(error);
    } finally {
      leave();
    }
  }
}

import { FLAG, FRAME } from './frames.ts';
import type { Output } from './output.ts';
import { checkPing } from './payloads.ts';

const NOTHING = Buffer.alloc(8);

/** The PINGs of both sides. */
export class Pings {
  readonly #output: Output;
  readonly #asked: (() => void)[] = [];

  constructor(output: Output) {
    this.#output = output;
  }

  /** @param answered called when the peer answers, or when the connection ends */
  ask(answered: () => void) {
    this.#asked.push(answered);
    this.#output.frame(FRAME.PING, 0, 0, NOTHING);
  }

  /** Answers a PING of the peer. @returns false for an acknowledgement @throws ConnectionError */
  hear(flags: number, id: number, payload: Buffer): boolean {
    checkPing(id, payload);
    if ((flags & FLAG.ACK) !== 0) {
      this.#asked.shift()?.();
      return false;
    }
    this.#output.frame(FRAME.PING, FLAG.ACK, 0, payload);
    return true;
  }

  end() {
    for (const answered of this.#asked.splice(0)) answered();
  }
}

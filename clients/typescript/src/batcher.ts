import type { ValidateKeyRequest, ValidateKeyResponse } from '../../../gen/apikey/v1/auth_pb.ts';

const MOST = 100;

interface Waiting {
  readonly request: ValidateKeyRequest;
  readonly resolve: (response: Promise<ValidateKeyResponse>) => void;
}
type Send = (requests: readonly ValidateKeyRequest[], end: number) => Promise<readonly ValidateKeyResponse[]>;

/** Gathers the questions of one turn of the event loop into calls of at most 100. */
export class Batcher {
  readonly #send: Send;
  #waiting: Waiting[] = [];

  constructor(send: Send) {
    this.#send = send;
  }

  /** @param end the deadline, on the clock of performance.now() */
  ask(request: ValidateKeyRequest, end: number): Promise<ValidateKeyResponse> {
    return new Promise((resolve) => {
      const first = this.#waiting.push({ request, resolve }) === 1;
      // Later questions of this turn have later deadlines: the first deadline holds for all.
      if (first) setImmediate(() => this.#flush(end));
    });
  }

  #flush(end: number): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (let from = 0; from < all.length; from += MOST) {
      const part = all.slice(from, from + MOST);
      const answers = this.#send(
        part.map(({ request }) => request),
        end,
      );
      for (const [i, { resolve }] of part.entries())
        resolve(answers.then((responses) => responses[i] as ValidateKeyResponse));
    }
  }
}

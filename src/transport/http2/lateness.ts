export interface Patience {
  /** Time limit from the start of the connection to the end of the preface and the SETTINGS. */
  readonly silentConnectionMs: number;
  /** Time limit from the first byte of a request's headers to their end. */
  readonly headersMs: number;
  /** Time limit from the first byte of any other frame to its last. */
  readonly messageMs: number;
  /** The interval of PINGs, and the time limit for their answers. */
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
}

/** An incomplete input of a peer; `name` distinguishes it from the next one of its kind. */
export interface Begun {
  readonly kind: 'settings' | 'headers' | 'frame';
  readonly name: number;
}

/** The input that a new connection waits for. */
export const SETTINGS_DUE: Begun = { kind: 'settings', name: 0 };

/** Tracks how late a peer is; its methods are called at each tick of the listener. */
export class Lateness {
  readonly #patience: Patience;
  #begun: Begun | undefined;
  /** The first tick with the current input. */
  #since: number;
  #pinged: number;
  #awaitsPong = false;

  constructor(patience: Patience, now: number) {
    this.#patience = patience;
    this.#begun = SETTINGS_DUE;
    this.#since = now;
    this.#pinged = now;
  }

  /** Whether the peer takes too long to complete its input. */
  isOverdue(begun: Begun | undefined, now: number): boolean {
    if (begun?.kind !== this.#begun?.kind || begun?.name !== this.#begun?.name) {
      this.#begun = begun;
      this.#since = now;
    }
    if (begun === undefined) return false;
    const { silentConnectionMs, headersMs, messageMs } = this.#patience;
    const limit = { settings: silentConnectionMs, headers: headersMs, frame: messageMs }[begun.kind];
    return now - this.#since > limit;
  }

  /** Whether the peer has not answered a PING in time. */
  isGone(now: number): boolean {
    return this.#awaitsPong && now - this.#pinged > this.#patience.keepaliveTimeoutMs;
  }

  /**
   * Whether a PING is due; the caller sends it and must call `pong` at the answer.
   * @param suspect a frame may be incomplete: the PING is due sooner
   */
  asks(now: number, suspect = false): boolean {
    const { headersMs, keepaliveMs } = this.#patience;
    if (this.#awaitsPong || now - this.#pinged < (suspect ? headersMs : keepaliveMs)) return false;
    this.#pinged = now;
    this.#awaitsPong = true;
    return true;
  }

  pong() {
    this.#awaitsPong = false;
  }
}

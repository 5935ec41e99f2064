export interface Patience {
  /** To the preface and the settings. */
  readonly silentConnectionMs: number;
  /** From the first byte of a request's headers to their end. */
  readonly headersMs: number;
  /** From the first byte of any other frame to its last. */
  readonly messageMs: number;
  /** How often a peer is asked whether it is still there, and how long it may take to say so. */
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
}

/** What a peer has begun and owes the rest of: `name` tells one from the next of its kind. */
export interface Begun {
  readonly kind: 'settings' | 'headers' | 'frame';
  readonly name: number;
}

/** A connection begins with them. */
export const SETTINGS_DUE: Begun = { kind: 'settings', name: 0 };

/** How late a peer is. It is asked at each tick of its listener. */
export class Lateness {
  readonly #patience: Patience;
  #begun: Begun | undefined;
  /** The first tick that saw it. */
  #since: number;
  #pinged: number;
  #awaitsPong = false;

  constructor(patience: Patience, now: number) {
    this.#patience = patience;
    this.#begun = SETTINGS_DUE;
    this.#since = now;
    this.#pinged = now;
  }

  /** The peer takes too long to finish what it has begun. */
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

  /** The peer has not answered a ping. */
  isGone(now: number): boolean {
    return this.#awaitsPong && now - this.#pinged > this.#patience.keepaliveTimeoutMs;
  }

  /**
   * Whether it is time to ask; then `pong` must be called with the response.
   * @param suspect a frame may be only half there: that is asked for sooner.
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

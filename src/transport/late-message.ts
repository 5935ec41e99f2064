import type { ConnectError } from '@connectrpc/connect';
import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import type { Departure } from '../rpc/incoming-call.ts';
import type { ServerStream } from './http2/transport.ts';
import type { UnarySession } from './unary-session.ts';
import type { UnfinishedMessage, UnfinishedMessages } from './unfinished.ts';

/** A call whose message did not arrive with its headers: authenticates first, and counts the bytes held. */
export class LateMessage {
  readonly #session: UnarySession;
  readonly #stream: ServerStream;
  #message: UnfinishedMessage | undefined;
  /** Pending authentication; undefined once the caller is admitted. */
  #admission: Promise<void> | undefined;
  #kept = 0;
  #credited = 0;

  constructor(session: UnarySession, stream: ServerStream) {
    this.#session = session;
    this.#stream = stream;
  }

  /**
   * @param tooMuch called when the message is too late, or there are too many unfinished messages
   * @param refused called when the caller is refused; it must send the error
   */
  begin(
    unfinished: UnfinishedMessages,
    tooMuch: (error: ApiError) => void,
    refused: (error: unknown) => void,
  ): void {
    const { owner, peerIp, headers } = this.#stream;
    this.#message = unfinished.begin({ connection: owner, peerIp }, headers.bytes, tooMuch);
    const admission = this.#message.ended ? undefined : this.#session.authenticate();
    if (admission === undefined) return;
    this.#admission = admission;
    admission.then(() => {
      this.#admission = undefined;
      this.#credit();
    }, refused);
  }

  /** Sets the number of bytes of the message that are held. */
  keeps(bytes: number): void {
    const more = bytes - this.#kept;
    this.#kept = bytes;
    this.#message?.grow(more);
    this.#credit();
  }

  /** Credits held bytes, but not before authentication: until then the stream's window limits the peer. */
  #credit(): void {
    if (this.#admission !== undefined) return;
    this.#stream.consumed(this.#kept - this.#credited);
    this.#credited = this.#kept;
  }

  async respond(message: () => MaybePromise<Uint8Array>, departure: Departure): Promise<Uint8Array> {
    await this.#admission;
    await this.#session.confirm();
    return this.#session.respond(message, departure);
  }

  async refuse(error: ApiError): Promise<ConnectError> {
    try {
      await this.#admission;
    } catch (refusal) {
      return refusal as ConnectError;
    }
    return this.#session.refuse(error);
  }

  /** No bytes of the message are held any more. */
  end(): void {
    this.#message?.end();
  }
}

import { ApiError } from '../keys/errors.ts';
import { LIMITS } from '../rpc/limits.ts';
import { networkOf } from './peer.ts';
import { Shares } from './shares.ts';

const { messageMs, messageGraceMs, messageBytesPerSecond } = LIMITS;

/** The sender of a message. */
export interface Sender {
  /** Any object that identifies the connection. */
  readonly connection: object;
  readonly peerIp: string;
}

/** A message that has arrived only in part. */
export interface UnfinishedMessage {
  /** Counts further bytes. */
  grow(bytes: number): void;
  readonly ended: boolean;
  /** The message is complete or no longer needed. May be called again. */
  end(): void;
}

/** Limits the memory and the time of messages that have arrived only in part. */
export class UnfinishedMessages {
  readonly #shares = new Shares(LIMITS.unfinishedBytes);
  /** The messages, oldest first. */
  readonly #messages = new Set<Message>();
  #newest: Message | undefined;
  #now = 0;
  #ticking: NodeJS.Timeout | undefined;

  /** @param refuse called at most once, when the message is too slow or exceeds a share */
  begin(sender: Sender, headerBytes: number, refuse: (error: ApiError) => void): UnfinishedMessage {
    const message = new Message(this, sender, this.#now, refuse);
    message.previous = this.#newest;
    if (this.#newest !== undefined) this.#newest.next = message;
    this.#newest = message;
    this.#messages.add(message);
    this.#ticking ??= setInterval(() => this.#tick(), LIMITS.tickMs).unref();
    message.hold(LIMITS.unfinishedOverheadBytes + headerBytes);
    return message;
  }

  /** The number of unfinished messages. */
  get count(): number {
    return this.#messages.size;
  }

  /** The bytes that they hold. */
  get bytes(): number {
    return this.#shares.bytes;
  }

  held({ sender, network }: Message, bytes: number): void {
    this.#shares.add(sender.connection, network, bytes);
  }

  /** Refuses the grown message when its connection or network exceeds its share, the newest when all do together. */
  check(grown: Message): void {
    if (this.#shares.isExceededBy(grown.sender.connection, grown.network)) grown.refuse(tooMany());
    while (this.#shares.isExceeded && this.#newest !== undefined) this.#newest.refuse(tooMany());
  }

  ended(message: Message): void {
    this.#messages.delete(message);
    if (message.previous !== undefined) message.previous.next = message.next;
    if (message.next !== undefined) message.next.previous = message.previous;
    else this.#newest = message.previous;
    if (this.#messages.size > 0) return;
    clearInterval(this.#ticking);
    this.#ticking = undefined;
  }

  #tick(): void {
    this.#now += LIMITS.tickMs;
    for (const message of this.#messages) {
      const age = this.#now - message.since;
      const least = (messageBytesPerSecond * Math.max(0, age - messageGraceMs)) / 1_000;
      if (age > messageMs || message.received < least)
        message.refuse(new ApiError('REQUEST_NOT_RECEIVED', 'the message came too slowly'));
    }
  }
}

class Message implements UnfinishedMessage {
  readonly sender: Sender;
  readonly network: string;
  readonly since: number;
  /** The neighbours in the order of their start. */
  previous: Message | undefined;
  next: Message | undefined;
  received = 0;
  readonly #all: UnfinishedMessages;
  readonly #refuse: (error: ApiError) => void;
  #held = 0;
  ended = false;

  constructor(all: UnfinishedMessages, sender: Sender, since: number, refuse: (error: ApiError) => void) {
    this.#all = all;
    this.sender = sender;
    this.network = networkOf(sender.peerIp);
    this.since = since;
    this.#refuse = refuse;
  }

  grow(bytes: number): void {
    this.received += bytes;
    this.hold(bytes);
  }

  hold(bytes: number): void {
    if (this.ended || bytes === 0) return;
    this.#held += bytes;
    this.#all.held(this, bytes);
    this.#all.check(this);
  }

  refuse(error: ApiError): void {
    if (this.ended) return;
    this.end();
    this.#refuse(error);
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.#all.held(this, -this.#held);
    this.#all.ended(this);
  }
}

function tooMany(): ApiError {
  return new ApiError('SERVER_OVERLOADED', 'too many unfinished messages are held here', {
    retryAfterMs: 1_000,
  });
}

import { ApiError } from '../keys/errors.ts';
import { LIMITS } from '../rpc/limits.ts';
import { networkOf } from './peer.ts';
import { Shares } from './shares.ts';

const { messageMs, messageGraceMs, messageBytesPerSecond } = LIMITS;

/** Where a message comes from. */
export interface Sender {
  /** Any object that stands for the connection. */
  readonly connection: object;
  readonly peerIp: string;
}

/** A message of which a part has arrived. */
export interface UnfinishedMessage {
  /** It holds so much more. */
  grow(bytes: number): void;
  readonly ended: boolean;
  /** It is whole, or nobody wants it any more. Safe to call again. */
  end(): void;
}

/** Messages that have not arrived whole: what they hold is bounded, and so is their time. */
export class UnfinishedMessages {
  readonly #shares = new Shares(LIMITS.unfinishedBytes);
  /** Oldest first. */
  readonly #messages = new Set<Message>();
  #newest: Message | undefined;
  #now = 0;
  #ticking: NodeJS.Timeout | undefined;

  /** @param refuse is called once at most, when the message is too late, or one too many. */
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

  /** How many there are. */
  get count(): number {
    return this.#messages.size;
  }

  /** What they hold. */
  get bytes(): number {
    return this.#shares.bytes;
  }

  held({ sender, network }: Message, bytes: number): void {
    this.#shares.add(sender.connection, network, bytes);
  }

  /** Refuses what is over a share: of its own share the message that grew, of all the newest. */
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
  /** Its neighbours in the order of their beginnings. */
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

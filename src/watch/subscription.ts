import { ApiError } from '../keys/errors.ts';

const MAX_WAITING = 1_000;
const MAX_SUBSCRIBERS = 1_000;
/** Subscribers of one calling key, and of one network, so that none can take all places. */
export const MAX_OF_ONE = 500;

/** A subscriber: the calling key, and the network it calls from. */
export interface Subscriber {
  readonly keyId: string;
  readonly network: string;
}

/** The unread messages of one subscriber. Bounded, so that a slow subscriber is dropped instead of buffered forever. */
export class Subscription<T> implements AsyncIterable<T> {
  readonly #waiting: T[] = [];
  #ended = false;
  #failure: ApiError | undefined;
  #wake: (() => void) | undefined;
  readonly #over: () => void;

  constructor(over: () => void) {
    this.#over = over;
  }

  push(item: T): void {
    if (this.#ended) return;
    if (this.#waiting.length >= MAX_WAITING) {
      const text = `this subscriber is ${MAX_WAITING} messages behind: subscribe again from where it is`;
      this.end(new ApiError('SUBSCRIBER_TOO_SLOW', text, { retryAfterMs: 1000 }));
      return;
    }
    this.#waiting.push(item);
    this.#wake?.();
  }

  /** Ends the stream at once, with an error or normally. */
  end(failure?: ApiError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = failure;
    this.#over();
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    try {
      for (;;) {
        while (!this.#ended && this.#waiting.length === 0) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
        if (this.#ended) break;
        yield this.#waiting.shift() as T;
      }
      if (this.#failure !== undefined) throw this.#failure;
    } finally {
      this.end();
    }
  }
}

/** The subscribers to one kind of message. */
export class Subscribers<T> {
  readonly #all = new Map<Subscription<T>, Subscriber>();
  #closed = false;

  get size(): number {
    return this.#all.size;
  }

  /** @throws TOO_MANY_SUBSCRIBERS, SERVER_STOPPING */
  add(who: Subscriber): Subscription<T> {
    if (this.#closed) throw stopping();
    const same = { key: 0, network: 0 };
    for (const { keyId, network } of this.#all.values()) {
      if (keyId === who.keyId) same.key++;
      if (network === who.network) same.network++;
    }
    if (same.key >= MAX_OF_ONE || same.network >= MAX_OF_ONE) {
      const whose = same.key >= MAX_OF_ONE ? 'this calling key' : 'this address';
      throw new ApiError('TOO_MANY_SUBSCRIBERS', `${whose} has ${MAX_OF_ONE} subscribers on this process`, {
        retryAfterMs: 10_000,
      });
    }
    if (this.#all.size >= MAX_SUBSCRIBERS) {
      throw new ApiError('TOO_MANY_SUBSCRIBERS', `this process has ${MAX_SUBSCRIBERS} subscribers`, {
        retryAfterMs: 10_000,
      });
    }
    const subscription: Subscription<T> = new Subscription(() => this.#all.delete(subscription));
    this.#all.set(subscription, who);
    return subscription;
  }

  push(item: T): void {
    for (const subscription of this.#all.keys()) subscription.push(item);
  }

  /** Ends every stream; clients reconnect to another process. */
  close(): void {
    this.#closed = true;
    for (const subscription of this.#all.keys()) subscription.end(stopping());
  }
}

function stopping(): ApiError {
  return new ApiError('SERVER_STOPPING', 'the server is stopping: subscribe again', { retryAfterMs: 1000 });
}

import type { KeyChange, KeyStore } from '../keys/ports/key-store.ts';
import { type Subscriber, Subscribers, type Subscription } from './subscription.ts';

const POLL_MS = 250;
const HEARTBEAT_POLLS = 4;

/** A change of a key. RESET: changes are no longer remembered, so any key may have changed. Undefined: a heartbeat. */
export interface KeyNotice {
  readonly revision: number;
  readonly keyId: string;
  readonly change: KeyChange | 'RESET' | undefined;
}

/** Streams changes of keys to subscribers, in the order of their revisions and without gaps. */
export class KeyFeed {
  readonly #keys: Pick<KeyStore, 'changesSince'>;
  readonly #warn: (text: string, error: unknown) => void;
  readonly #subscribers = new Subscribers<KeyNotice>();
  /** Changes up to this revision were pushed; undefined without subscribers. */
  #cursor: number | undefined;
  #looking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #polls = 0;
  #failing = false;

  constructor(keys: Pick<KeyStore, 'changesSince'>, warn: (text: string, error: unknown) => void) {
    this.#keys = keys;
    this.#warn = warn;
  }

  /** @param since also push changes after this revision; undefined: only new changes */
  subscribe(
    since: number | undefined,
    who: Subscriber,
  ): {
    notices: AsyncIterable<KeyNotice>;
    subscription: Subscription<KeyNotice>;
  } {
    const subscription = this.#subscribers.add(who);
    clearTimeout(this.#timer);
    this.#looking ??= this.#look();
    return { notices: this.#read(subscription, since, this.#looking), subscription };
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#subscribers.close();
  }

  async *#read(
    subscription: Subscription<KeyNotice>,
    since: number | undefined,
    looked: Promise<void>,
  ): AsyncGenerator<KeyNotice, void> {
    try {
      // The cursor must be set before past changes are read, since only changes after it are pushed.
      await looked;
      const { revision, changes } = await this.#keys.changesSince(since ?? Number.MAX_SAFE_INTEGER);
      if (since === undefined) yield { revision, keyId: '', change: undefined };
      else if (changes === undefined) yield { revision, keyId: '', change: 'RESET' };
      else yield* changes;
      let last = revision;
      for await (const notice of subscription) {
        if (notice.change !== undefined && notice.revision <= last) continue;
        last = Math.max(last, notice.revision);
        yield notice.change === undefined ? { ...notice, revision: last } : notice;
      }
    } finally {
      subscription.end();
    }
  }

  #look(): Promise<void> {
    return this.#push().finally(() => {
      this.#looking = undefined;
      if (this.#subscribers.size === 0) this.#cursor = undefined;
      else
        this.#timer = setTimeout(() => {
          this.#looking ??= this.#look();
        }, POLL_MS).unref();
    });
  }

  async #push(): Promise<void> {
    try {
      const { revision, changes } = await this.#keys.changesSince(this.#cursor ?? Number.MAX_SAFE_INTEGER);
      if (this.#cursor !== undefined) {
        if (changes === undefined) this.#subscribers.push({ revision, keyId: '', change: 'RESET' });
        for (const change of changes ?? []) this.#subscribers.push(change);
      }
      this.#cursor = revision;
      this.#polls++;
      if (this.#polls % HEARTBEAT_POLLS === 0)
        this.#subscribers.push({ revision, keyId: '', change: undefined });
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) this.#warn('changes cannot be read for subscribers, trying again', error);
      this.#failing = true;
    }
  }
}

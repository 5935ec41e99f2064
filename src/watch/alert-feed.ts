import type { Alert, AlertLog } from '../keys/notices.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { type Subscriber, Subscribers, type Subscription } from './subscription.ts';

const POLL_MS = 1_000;
const PAGE = 500;
/** How late an alert may be written after its time, clock differences included: each look reaches back this far. */
const OVERLAP_MS = 15_000;

/** Live alerts for subscribers: those of this process at once, those of others from a read of the store each second. */
export class AlertFeed {
  readonly #alerts: AlertLog;
  readonly #clock: Clock;
  readonly #warn: (text: string, error: unknown) => void;
  readonly #subscribers = new Subscribers<Alert>();
  /** Times of the alerts already pushed, by id. */
  readonly #pushed = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #failing = false;
  /** When the last successful look began: earlier alerts are pushed. */
  #through = 0;

  constructor(alerts: AlertLog, clock: Clock, warn: (text: string, error: unknown) => void) {
    this.#alerts = alerts;
    this.#clock = clock;
    this.#warn = warn;
  }

  /** @param since also push alerts from then on; undefined: only new alerts */
  subscribe(
    since: number | undefined,
    who: Subscriber,
  ): { alerts: AsyncIterable<Alert>; subscription: Subscription<Alert> } {
    if (this.#subscribers.size === 0) this.#through = this.#clock.now();
    const subscription = this.#subscribers.add(who);
    const from = since ?? this.#clock.now();
    this.#look();
    return { alerts: this.#read(subscription, from, since !== undefined), subscription };
  }

  /** Reads the store now, since an alert was written. */
  wake(): void {
    if (this.#subscribers.size > 0) this.#look();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#subscribers.close();
  }

  async *#read(
    subscription: Subscription<Alert>,
    from: number,
    replay: boolean,
  ): AsyncGenerator<Alert, void> {
    const live = subscription[Symbol.asyncIterator]();
    const replayed = new Set<string>();
    try {
      // Alerts pushed meanwhile wait in the subscription, so none is lost between replay and live.
      for (let after: readonly (string | number)[] | undefined; replay; ) {
        const page = await this.#alerts.list(from, { size: PAGE, after });
        for (const alert of page.items) {
          if (alert.time >= this.#clock.now() - 2 * OVERLAP_MS) replayed.add(alert.id);
          yield alert;
        }
        if (page.next === undefined) break;
        after = page.next;
      }
      for await (const alert of live) if (alert.time >= from && !replayed.delete(alert.id)) yield alert;
    } finally {
      subscription.end();
    }
  }

  #look(): void {
    if (this.#looking !== undefined) return;
    clearTimeout(this.#timer);
    this.#looking = this.#push().finally(() => {
      this.#looking = undefined;
      if (this.#subscribers.size > 0) this.#timer = setTimeout(() => this.#look(), POLL_MS).unref();
    });
  }

  async #push(): Promise<void> {
    const begun = this.#clock.now();
    const since = this.#through - OVERLAP_MS;
    try {
      let after: readonly (string | number)[] | undefined;
      do {
        const page = await this.#alerts.list(since, { size: PAGE, after });
        for (const alert of page.items) {
          if (this.#pushed.has(alert.id)) continue;
          this.#pushed.set(alert.id, alert.time);
          this.#subscribers.push(alert);
        }
        after = page.next;
      } while (after !== undefined);
      for (const [id, time] of this.#pushed) if (time < since - OVERLAP_MS) this.#pushed.delete(id);
      this.#through = begun;
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) this.#warn('alerts cannot be read for subscribers, trying again', error);
      this.#failing = true;
    }
  }
}

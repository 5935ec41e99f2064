import type { AuditLog, ChainLog, ChainPlace } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { checkpointEntries } from './checkpoint.ts';

const RENEW_EVERY_MS = 3_600_000;
/** The event of a cut is written again when less than this part of its retention is left. */
const LAST_PART = 0.1;

/** Deletes old events from the beginnings of chains; an event that states the cut is written first. */
export class Retention {
  readonly #log: Pick<AuditLog, 'record'>;
  readonly #chains: Pick<ChainLog, 'expiredPrefixes' | 'heads' | 'cut' | 'noteCut'>;
  readonly #clock: Clock;
  #renewed = Number.NEGATIVE_INFINITY;

  constructor(
    log: Pick<AuditLog, 'record'>,
    chains: Pick<ChainLog, 'expiredPrefixes' | 'heads' | 'cut' | 'noteCut'>,
    clock: Clock,
  ) {
    this.#log = log;
    this.#chains = chains;
    this.#clock = clock;
  }

  /** Deletes up to about `limit` events older than `time`; returns how many. */
  async deleteBefore(time: number, limit: number): Promise<number> {
    const prefixes = await this.#chains.expiredPrefixes(time, limit);
    if (prefixes.length === 0) return 0;
    await this.#renew(time);
    let deleted = 0;
    await this.#state(prefixes);
    for (const prefix of prefixes) {
      await this.#chains.cut(prefix, this.#clock.now());
      deleted += prefix.events;
    }
    return deleted;
  }

  /** The events that prove earlier cuts expire too: they are written again before they are deleted. */
  async #renew(before: number): Promise<void> {
    const now = this.#clock.now();
    if (this.#clock.monotonic() - this.#renewed < RENEW_EVERY_MS) return;
    this.#renewed = this.#clock.monotonic();
    const last = before + LAST_PART * (now - before);
    const heads = await this.#chains.heads();
    const old = heads.flatMap(({ processId, cut }) =>
      cut === undefined || cut.time >= last ? [] : [{ processId, ...cut }],
    );
    if (old.length === 0) return;
    await this.#state(old);
    for (const cut of old) await this.#chains.noteCut(cut, now);
  }

  /** Makes the statement of the cut durable: must happen before any event is deleted. */
  async #state(places: readonly ChainPlace[]): Promise<void> {
    for (const entry of checkpointEntries('cut', places, this.#clock.now())) await this.#log.record(entry);
  }
}

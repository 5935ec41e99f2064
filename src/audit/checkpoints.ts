import type { AuditLog, ChainLog } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Chain } from './chain.ts';
import { checkpointEntries, unlisted } from './checkpoint.ts';

const EVERY_MS = 180_000;

/** Every 3 min writes the ends of the other chains to this process's own, so that removing a chain is detected. */
export class Checkpoints {
  readonly #log: Pick<AuditLog, 'record'>;
  readonly #chains: Pick<ChainLog, 'heads' | 'noteListed' | 'processId'>;
  readonly #chain: Chain;
  readonly #clock: Clock;
  #last: number;

  constructor(
    log: Pick<AuditLog, 'record'>,
    chains: Pick<ChainLog, 'heads' | 'noteListed' | 'processId'>,
    chain: Chain,
    clock: Clock,
  ) {
    this.#log = log;
    this.#chains = chains;
    this.#chain = chain;
    this.#clock = clock;
    this.#last = clock.monotonic();
  }

  /** Writes the ends when the interval has passed. */
  async tick(): Promise<void> {
    if (this.#clock.monotonic() - this.#last < EVERY_MS) return;
    this.#last = this.#clock.monotonic();
    const heads = unlisted(this.#chain, await this.#chains.heads(), this.#chains.processId);
    for (const entry of checkpointEntries('heads', heads, this.#clock.now())) await this.#log.record(entry);
    if (heads.length > 0) await this.#chains.noteListed(heads);
  }
}

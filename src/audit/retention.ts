import { randomBytes } from 'node:crypto';
import type { AuditEntry, AuditLog, ChainPrefix } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { ownEntry } from './event.ts';

/** The outcome of the event that says where a chain begins from now on. */
export const CHECKPOINT = 'CHECKPOINT';

/** What a checkpoint says: a chain, up to which place it was deleted, and the hash there. */
export function checkpointReason(
  processId: string,
  { sequence, hash }: { sequence: number; hash: string },
): string {
  return `${processId} ${sequence} ${hash}`;
}

/** Deletes what is old from the beginnings of chains, each time after an event that says so. */
export class Retention {
  readonly #log: Pick<AuditLog, 'record' | 'expiredPrefixes' | 'cut'>;
  readonly #clock: Clock;

  constructor(log: Pick<AuditLog, 'record' | 'expiredPrefixes' | 'cut'>, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  /** Deletes up to about `limit` events from before `time`; answers how many. */
  async deleteBefore(time: number, limit: number): Promise<number> {
    let deleted = 0;
    for (const prefix of await this.#log.expiredPrefixes(time, limit)) {
      const token = `cut-${randomBytes(8).toString('hex')}`;
      // The checkpoint is durable before anything goes.
      await this.#log.record(this.#checkpoint(prefix, token));
      await this.#log.cut(prefix, token);
      deleted += prefix.events;
    }
    return deleted;
  }

  #checkpoint(prefix: ChainPrefix, requestId: string): AuditEntry {
    const reason = checkpointReason(prefix.processId, prefix);
    return ownEntry({
      method: 'apikeyd/retention',
      time: this.#clock.now(),
      outcome: CHECKPOINT,
      reason,
      requestId,
    });
  }
}

import { HOUR_MS, isUse } from '../audit/usage-counter.ts';
import type { AuditLog } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { UsageFilter, UsageLog, UsageRow } from '../keys/ports/usage.ts';

export const DAY_MS = 24 * HOUR_MS;
const MAX_ADDRESSES = 20;
const EVENTS_PER_READ = 1_000;
const MAX_READS = 10;

/** An address that used a key. */
export interface AddressUse {
  readonly clientIp: string;
  readonly lastTime: number;
  readonly count: number;
}

/** How often keys were used, and from which addresses. */
export class UsageReport {
  readonly #usage: UsageLog;
  readonly #audit: Pick<AuditLog, 'list'>;
  readonly #clock: Clock;

  constructor(usage: UsageLog, audit: Pick<AuditLog, 'list'>, clock: Clock) {
    this.#usage = usage;
    this.#audit = audit;
    this.#clock = clock;
  }

  async read(
    filter: UsageFilter,
    stepMs: number,
  ): Promise<{ rows: readonly UsageRow[]; lastAddresses: readonly AddressUse[] }> {
    const rows = await this.#usage.read(filter, stepMs);
    const { keyId } = filter;
    return { rows, lastAddresses: keyId === undefined ? [] : await this.#lastAddresses(keyId) };
  }

  /** Addresses in the newest events of the last day; a bounded number of events is read. */
  async #lastAddresses(keyId: string): Promise<readonly AddressUse[]> {
    const found = new Map<string, AddressUse>();
    const filter = { keyId, startTime: this.#clock.now() - DAY_MS };
    let after: readonly (string | number)[] | undefined;
    for (let reads = 0; reads < MAX_READS; reads++) {
      const { items, next } = await this.#audit.list(filter, { size: EVENTS_PER_READ, after });
      for (const event of items) {
        const { clientIp, time } = event;
        if (!isUse(event) || clientIp === '' || event.clientIpIsPeer) continue;
        const before = found.get(clientIp);
        found.set(clientIp, {
          clientIp,
          lastTime: before?.lastTime ?? time,
          count: (before?.count ?? 0) + 1,
        });
      }
      if (next === undefined) break;
      after = next;
    }
    return [...found.values()].sort((a, b) => b.lastTime - a.lastTime).slice(0, MAX_ADDRESSES);
  }
}

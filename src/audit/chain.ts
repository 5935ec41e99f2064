import { createHmac, hash } from 'node:crypto';
import type { AuditEntry, AuditRecord } from '../keys/ports.ts';

/** What the first event of a chain follows. */
export const GENESIS = '0'.repeat(64);

export type ChainValue = string | number;

/** How many values an event has in a flat array. */
export const EVENT_WIDTH = 17;

/** Appends an event's values in their canonical order: what is hashed, and the columns of the embedded store. */
export function pushEvent(to: ChainValue[], e: AuditEntry): void {
  to.push(
    e.time,
    e.method,
    e.outcome,
    e.reason,
    e.keyId,
    e.callerKeyId,
    e.keyFingerprint,
    e.requiredScope,
    e.clientIp,
    e.clientIpIsPeer ? 1 : 0,
    e.userAgent,
    e.secretSlot,
    e.cost,
    e.dryRun ? 1 : 0,
    e.latencyMicros,
    e.requestId,
    e.refusedCalls,
  );
}

/** Where an event stands. */
export interface Link {
  readonly id: string;
  readonly processId: string;
  readonly sequence: number;
  /** '' when the writing process served the call. */
  readonly servedBy: string;
}

/** Links events: each hash is over the one before and the whole event; with a key it is an HMAC. */
export class Chain {
  readonly #key: Uint8Array | undefined;

  constructor(key: Uint8Array | undefined) {
    this.#key = key;
  }

  /** SHA-256 in 64 lower-case hex. */
  next(previous: string, { id, processId, sequence, servedBy }: Link, values: readonly ChainValue[]): string {
    const text = JSON.stringify([previous, processId, sequence, id, servedBy, ...values]);
    return this.#key === undefined
      ? hash('sha256', text, 'hex')
      : createHmac('sha256', this.#key).update(text).digest('hex');
  }

  /** The hash that a record must have. */
  hashOf(previous: string, record: AuditRecord): string {
    const values: ChainValue[] = [];
    pushEvent(values, record);
    return this.next(previous, record, values);
  }
}

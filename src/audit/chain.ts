import { createHmac, hash } from 'node:crypto';
import type { AuditRecord } from '../keys/ports/audit.ts';
import { eventText } from './fields.ts';

/** What the first event of a chain follows. */
export const GENESIS = '0'.repeat(64);

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

  /** SHA-256 in 64 lower-case hex. @param text of eventText */
  next(previous: string, { id, processId, sequence, servedBy }: Link, time: number, text: string): string {
    const head = JSON.stringify([previous, processId, sequence, id, servedBy, time]);
    const linked = `${head.slice(0, -1)},${text.slice(1)}`;
    return this.#key === undefined
      ? hash('sha256', linked, 'hex')
      : createHmac('sha256', this.#key).update(linked).digest('hex');
  }

  /** The hash that a record must have. */
  hashOf(previous: string, record: AuditRecord): string {
    return this.next(previous, record, record.time, eventText(record));
  }
}

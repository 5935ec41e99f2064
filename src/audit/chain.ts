import { createHmac, hash } from 'node:crypto';
import type { AuditEntry, AuditRecord } from '../keys/ports/audit.ts';

/** What the first event of a chain follows. */
export const GENESIS = '0'.repeat(64);

/**
 * The canonical form of an event: its values but the time, in a fixed order, as a JSON array. It is what is hashed, and
 * what the embedded store keeps.
 */
export function eventText(e: AuditEntry): string {
  return JSON.stringify([
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
  ]);
}

/** What an event says of itself besides: the time is milliseconds since 1970. */
export function parseEvent(time: number, text: string): AuditEntry {
  const [
    method,
    outcome,
    reason,
    keyId,
    callerKeyId,
    keyFingerprint,
    requiredScope,
    clientIp,
    clientIpIsPeer,
    userAgent,
    secretSlot,
    cost,
    dryRun,
    latencyMicros,
    requestId,
    refusedCalls,
  ] = JSON.parse(text);
  return {
    time,
    method,
    outcome,
    reason,
    keyId,
    callerKeyId,
    keyFingerprint,
    requiredScope,
    clientIp,
    clientIpIsPeer: clientIpIsPeer === 1,
    userAgent,
    secretSlot,
    cost,
    dryRun: dryRun === 1,
    latencyMicros,
    requestId,
    refusedCalls,
  };
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

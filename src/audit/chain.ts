import { createHmac, hash } from 'node:crypto';
import type { ChainHead, ChainPlace } from '../keys/ports/audit.ts';

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

  /** Proves that a note of where a chain ends was written by somebody who has the key; '' without one. */
  noteMac({ processId, sequence, hash, closed, older }: ChainHead): string {
    return this.mac(['note', processId, sequence, hash, closed, older === true]);
  }

  /** The same of where it begins. */
  cutMac({ processId, sequence, hash }: ChainPlace, time: number): string {
    return this.mac(['cut', processId, sequence, hash, time]);
  }

  /** The same of up to where other chains name it. */
  listedMac(processId: string, sequence: number): string {
    return this.mac(['listed', processId, sequence]);
  }

  /** No hash of an event: those begin with 64 digits. */
  mac(parts: readonly (string | number | boolean)[]): string {
    if (this.#key === undefined) return '';
    return createHmac('sha256', this.#key).update(JSON.stringify(parts)).digest('hex');
  }
}

import { createHmac, hash } from 'node:crypto';
import type { ChainHead, ChainPlace } from '../keys/ports/audit.ts';

/** The previous hash of a chain's first event. */
export const GENESIS = '0'.repeat(64);

/** An event's id and its place in a chain. */
export interface Link {
  readonly id: string;
  readonly processId: string;
  readonly sequence: number;
  /** The process that served the call; '' for the writing process. */
  readonly servedBy: string;
}

/** Links events: each hash covers the previous hash and the whole event; with a key it is an HMAC. */
export class Chain {
  readonly #key: Uint8Array | undefined;

  constructor(key: Uint8Array | undefined) {
    this.#key = key;
  }

  /** The hash of an event: 64 lower-case hex digits. @param text made by eventText */
  next(previous: string, { id, processId, sequence, servedBy }: Link, time: number, text: string): string {
    const head = JSON.stringify([previous, processId, sequence, id, servedBy, time]);
    const linked = `${head.slice(0, -1)},${text.slice(1)}`;
    return this.#key === undefined
      ? hash('sha256', linked, 'hex')
      : createHmac('sha256', this.#key).update(linked).digest('hex');
  }

  /** Proves that a writer with the key wrote the note of a chain's end; '' without a key. */
  noteMac({ processId, sequence, hash, closed, older }: ChainHead): string {
    return this.mac(['note', processId, sequence, hash, closed, older === true]);
  }

  /** The same for the note of a cut. */
  cutMac({ processId, sequence, hash }: ChainPlace, time: number): string {
    return this.mac(['cut', processId, sequence, hash, time]);
  }

  /** The same for the sequence up to which other chains name this one. */
  listedMac(processId: string, sequence: number): string {
    return this.mac(['listed', processId, sequence]);
  }

  /** Cannot collide with an event's hash: there the hashed text begins with 64 digits. */
  mac(parts: readonly (string | number | boolean)[]): string {
    if (this.#key === undefined) return '';
    return createHmac('sha256', this.#key).update(JSON.stringify(parts)).digest('hex');
  }
}

import type { AuditEntry } from '../keys/ports/audit.ts';
import { entryFrom } from './fields.ts';

/** An entry with its id in the log: the same whichever process writes it, and however often. */
export interface AuditEvent {
  readonly id: string;
  readonly entry: AuditEntry;
  /** The process that served the call. */
  readonly servedBy: string;
}

/** Gives events globally unique ids: the process's random id and a count. */
export class EventFactory {
  readonly processId: string;
  #count = 0;

  constructor(processId: string) {
    this.processId = processId;
  }

  create(entry: AuditEntry): AuditEvent {
    this.#count++;
    return { id: `${this.processId}-${this.#count}`, entry, servedBy: this.processId };
  }
}

type OwnFacts = Pick<AuditEntry, 'time' | 'outcome' | 'reason'> & Partial<AuditEntry>;

/** An event of the server itself, not of a call. */
export function ownEntry({ time, ...facts }: OwnFacts): AuditEntry {
  return entryFrom(time, ({ name }) => facts[name]);
}

import { createHmac, hash } from 'node:crypto';
import { eventText, parseEvent } from '../../../src/audit/fields.ts';

const GENESIS = '0'.repeat(64);

/** An event as somebody who rewrites the store sees it. */
export interface LedgerRow {
  id: string;
  processId: string;
  sequence: number | string | bigint;
  hash: string;
  time: number;
  /** The canonical form. */
  text: string;
  /** What more the row, or document, is given. */
  more?: Record<string, unknown>;
  /** SQLite: where it lies; without one at the end. */
  row?: bigint | number;
}

export interface LedgerNote {
  processId: string;
  sequence: number;
  hash: string;
  closed: boolean;
  mac: string;
  older?: boolean;
  cut?: { sequence: number; hash: string; time: number; mac: string };
  listed?: { sequence: number; mac: string };
}

/** All of the audit that is in a store, to be changed at will and put back. */
export interface Ledger {
  rows: LedgerRow[];
  notes: LedgerNote[];
}

/** How a ledger gets out of a store behind its back, and into it. */
export interface LedgerStore {
  read(url: string): Promise<Ledger>;
  write(url: string, ledger: Ledger): Promise<void>;
}

export const copyOf = (ledger: Ledger): Ledger => structuredClone(ledger);

export const rowsOf = ({ rows }: Ledger, processId: string) =>
  rows.filter((row) => row.processId === processId);

/** The processes in the order in which they wrote. */
export const processesOf = ({ rows, notes }: Ledger) => [
  ...new Set([...rows, ...notes].map(({ processId }) => processId)),
];

export function noteOf({ notes }: Ledger, processId: string): LedgerNote {
  const note = notes.find((one) => one.processId === processId);
  if (note === undefined) throw new Error(`no note of ${processId}`);
  return note;
}

export function remove(ledger: Ledger, gone: (row: LedgerRow) => boolean): void {
  ledger.rows = ledger.rows.filter((row) => !gone(row));
}

export function removeNote(ledger: Ledger, processId: string): void {
  ledger.notes = ledger.notes.filter((note) => note.processId !== processId);
}

export function changed(text: string, change: Partial<ReturnType<typeof parseEvent>>): string {
  return eventText({ ...parseEvent(0, text), ...change });
}

/** The hash of a row, for those who have no key, or have it. */
export function hashOf(previous: string, row: LedgerRow, key?: Uint8Array): string {
  const { id, processId, sequence, time, text } = row;
  const head = JSON.stringify([previous, processId, sequence, id, '', time]);
  const linked = `${head.slice(0, -1)},${text.slice(1)}`;
  return key === undefined
    ? hash('sha256', linked, 'hex')
    : createHmac('sha256', key).update(linked).digest('hex');
}

/** Makes a chain look right again after its rows were changed, its note too, as far as that can be without the key. */
export function relink(ledger: Ledger, processId: string): void {
  const note = ledger.notes.find((one) => one.processId === processId);
  let previous = note?.cut?.hash ?? GENESIS;
  for (const row of rowsOf(ledger, processId)) {
    row.hash = hashOf(previous, row);
    previous = row.hash;
  }
  const last = rowsOf(ledger, processId).at(-1);
  if (note !== undefined && last !== undefined) {
    note.sequence = Number(last.sequence);
    note.hash = last.hash;
  }
}

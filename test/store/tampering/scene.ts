import { ownEntry } from '../../../src/audit/event.ts';
import { eventText } from '../../../src/audit/fields.ts';
import { type Ledger, type LedgerRow, rowsOf } from './ledger.ts';

/** Who finds it: VerifyAudit alone, or with an anchor, or for whoever has kept the heads. */
export type Finder = 'store' | 'anchor' | 'heads';

export interface Tampering {
  readonly name: string;
  /** The finders that find it; of a store without, and with a chain key. */
  readonly without: readonly Finder[];
  readonly withKey: readonly Finder[];
  readonly only?: 'sqlite' | 'mongo';
  /** @param at the chains, oldest first, the first of them cut by retention, and the store some events ago */
  do(ledger: Ledger, at: Scene): void;
}

export interface Scene {
  readonly first: string;
  readonly middle: string;
  readonly last: string;
  /** As it was before the last event of the last chain. */
  readonly earlier: Ledger;
  /** As it was while the chain in the middle was written. */
  readonly longAgo: Ledger;
}

export const ALL: readonly Finder[] = ['store', 'anchor', 'heads'];
export const KEPT: readonly Finder[] = ['anchor', 'heads'];

const event = (reason: string) => eventText(ownEntry({ time: 0, outcome: 'OK', reason }));

export function rowAt(ledger: Ledger, processId: string, place: number): LedgerRow {
  const row = rowsOf(ledger, processId).at(place);
  if (row === undefined) throw new Error(`no row ${place} of ${processId}`);
  return row;
}

export function forge(
  ledger: Ledger,
  processId: string,
  sequence: LedgerRow['sequence'],
  more: Partial<LedgerRow> = {},
) {
  const id = `${processId}-${sequence}`;
  ledger.rows.push({
    id,
    processId,
    sequence,
    hash: 'f'.repeat(64),
    time: 1_500,
    text: event('forged'),
    ...more,
  });
}

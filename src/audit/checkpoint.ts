import type { AuditEntry, ChainHead, ChainPlace } from '../keys/ports/audit.ts';
import type { Chain } from './chain.ts';
import { ownEntry } from './event.ts';

/** The outcome of an event that says where other chains end, or where one begins from now on. */
export const CHECKPOINT = 'CHECKPOINT';
/** The outcome of an event that says which events a restored backup does not have. */
export const RESTORED = 'RESTORED';

/** Places that one event names. */
const PLACES = 50;

/** Part of a chain that is known to be lost. */
export interface LostRange {
  readonly processId: string;
  readonly from: number;
  readonly to: number;
}

/** heads: chains that ended there. cut: chains that were deleted up to there. lost: what a restored backup lacks. */
export type Statement =
  | { readonly kind: 'heads' | 'cut'; readonly places: readonly ChainPlace[] }
  | { readonly kind: 'lost'; readonly ranges: readonly LostRange[] };

const text = ({ processId, sequence, hash }: ChainPlace) => `${processId} ${sequence} ${hash}`;

/** Events that say it, as many as are needed. */
export function checkpointEntries(
  kind: 'heads' | 'cut',
  places: readonly ChainPlace[],
  time: number,
): AuditEntry[] {
  const entries: AuditEntry[] = [];
  for (let at = 0; at < places.length; at += PLACES) {
    const reason = `${kind} ${places
      .slice(at, at + PLACES)
      .map(text)
      .join(', ')}`;
    entries.push(ownEntry({ method: 'apikeyd/checkpoint', time, outcome: CHECKPOINT, reason }));
  }
  return entries;
}

/** The event by which a restore says what the backup lacks: those places are no defect from then on. */
export function restoredEntry(ranges: readonly LostRange[], time: number): AuditEntry {
  const lost = ranges.map(({ processId, from, to }) => `${processId} ${from} ${to}`).join(', ');
  return ownEntry({ method: 'apikeyd/restore', time, outcome: RESTORED, reason: `lost ${lost}` });
}

/** As many of them as are needed, and one where nothing is lost. */
export function restoredEntries(ranges: readonly LostRange[], time: number): AuditEntry[] {
  const entries = [restoredEntry(ranges.slice(0, PLACES), time)];
  for (let at = PLACES; at < ranges.length; at += PLACES)
    entries.push(restoredEntry(ranges.slice(at, at + PLACES), time));
  return entries;
}

const PLACE = /^(\S+) (\d+) ([0-9a-f]{64})$/;
const RANGE = /^(\S+) (\d+) (\d+)$/;

/** What an event says about chains; undefined for one that says nothing of that kind. */
export function statementOf(outcome: string, reason: string): Statement | undefined {
  if (outcome === RESTORED && reason.startsWith('lost ')) {
    const ranges = reason.slice(5).split(', ').map(rangeOf);
    return { kind: 'lost', ranges: ranges.filter((range) => range !== undefined) };
  }
  if (outcome !== CHECKPOINT) return undefined;
  const kind = /^(heads|cut) /.exec(reason)?.[1];
  // The first release wrote one cut an event, without a word in front.
  const rest = kind === undefined ? reason : reason.slice(kind.length + 1);
  const places = rest.split(', ').map(placeOf);
  return {
    kind: kind === 'heads' ? 'heads' : 'cut',
    places: places.filter((place) => place !== undefined),
  };
}

function placeOf(text: string): ChainPlace | undefined {
  const [, processId, sequence, hash] = PLACE.exec(text) ?? [];
  return processId === undefined || hash === undefined
    ? undefined
    : { processId, sequence: Number(sequence), hash };
}

function rangeOf(text: string): LostRange | undefined {
  const [, processId, from, to] = RANGE.exec(text) ?? [];
  return processId === undefined ? undefined : { processId, from: Number(from), to: Number(to) };
}

/** Chains of others whose end no event names yet. */
export function unlisted(chain: Chain, heads: readonly ChainHead[], own: string): ChainHead[] {
  return heads.filter((head) => {
    const { processId, sequence, cut, listed } = head;
    if (processId === own || sequence === 0 || sequence <= (cut?.sequence ?? 0)) return false;
    // A note that is not what was written is VerifyAudit's to tell, and nothing to be repeated.
    if (head.mac !== chain.noteMac(head)) return false;
    const known = listed !== undefined && listed.mac === chain.listedMac(processId, listed.sequence);
    return !known || listed.sequence < sequence;
  });
}

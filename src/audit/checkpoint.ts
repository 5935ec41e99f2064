import type { AuditEntry, ChainHead, ChainPlace } from '../keys/ports/audit.ts';
import type { Chain } from './chain.ts';
import { ownEntry } from './event.ts';

/** The outcome of an event that names the ends of other chains, or the new beginnings of chains. */
export const CHECKPOINT = 'CHECKPOINT';
/** The outcome of an event that names the events missing from a restored backup. */
export const RESTORED = 'RESTORED';

/** The most places that one event names. */
const PLACES = 50;

/** A part of a chain that a restore has lost. */
export interface LostRange {
  readonly processId: string;
  readonly from: number;
  readonly to: number;
}

/** heads: the ends of chains. cut: chains were deleted up to these places. lost: events missing from a backup. */
export type Statement =
  | { readonly kind: 'heads' | 'cut'; readonly places: readonly ChainPlace[] }
  | { readonly kind: 'lost'; readonly ranges: readonly LostRange[] };

const text = ({ processId, sequence, hash }: ChainPlace) => `${processId} ${sequence} ${hash}`;

/** The events that state these places, at most PLACES in each. */
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

/** The event that states the events missing after a restore: they are no longer a defect. */
export function restoredEntry(ranges: readonly LostRange[], time: number): AuditEntry {
  const lost = ranges.map(({ processId, from, to }) => `${processId} ${from} ${to}`).join(', ');
  return ownEntry({ method: 'apikeyd/restore', time, outcome: RESTORED, reason: `lost ${lost}` });
}

/** Such events for all ranges; one event even when nothing is lost. */
export function restoredEntries(ranges: readonly LostRange[], time: number): AuditEntry[] {
  const entries = [restoredEntry(ranges.slice(0, PLACES), time)];
  for (let at = PLACES; at < ranges.length; at += PLACES)
    entries.push(restoredEntry(ranges.slice(at, at + PLACES), time));
  return entries;
}

const PLACE = /^(\S+) (\d+) ([0-9a-f]{64})$/;
const RANGE = /^(\S+) (\d+) (\d+)$/;

/** Parses the statement of an event about chains; undefined when it makes none. */
export function statementOf(outcome: string, reason: string): Statement | undefined {
  if (outcome === RESTORED && reason.startsWith('lost ')) {
    const ranges = reason.slice(5).split(', ').map(rangeOf);
    return { kind: 'lost', ranges: ranges.filter((range) => range !== undefined) };
  }
  if (outcome !== CHECKPOINT) return undefined;
  const kind = /^(heads|cut) /.exec(reason)?.[1];
  // The first release wrote one cut per event, without the kind in front.
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

/** The chains of other processes whose end no event names yet. */
export function unlisted(chain: Chain, heads: readonly ChainHead[], own: string): ChainHead[] {
  return heads.filter((head) => {
    const { processId, sequence, cut, listed } = head;
    if (processId === own || sequence === 0 || sequence <= (cut?.sequence ?? 0)) return false;
    // VerifyAudit reports a forged note; a checkpoint must not confirm it.
    if (head.mac !== chain.noteMac(head)) return false;
    const known = listed !== undefined && listed.mac === chain.listedMac(processId, listed.sequence);
    return !known || listed.sequence < sequence;
  });
}

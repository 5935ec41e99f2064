import type { DatabaseSync } from 'node:sqlite';
import type { Chain } from '../../audit/chain.ts';
import type { ChainHead, ChainPlace } from '../../keys/ports/audit.ts';
import type { Statement, Value } from './thread-messages.ts';

/** Takes the values of noteOf. */
export const NOTE_HEAD = `INSERT INTO api_key_chain_heads (process_id, sequence, hash, closed, mac) VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (process_id) DO UPDATE SET
    sequence = excluded.sequence, hash = excluded.hash, closed = excluded.closed, mac = excluded.mac`;

export function noteOf(chain: Chain, head: ChainHead): Value[] {
  return [head.processId, head.sequence, head.hash, head.closed ? 1 : 0, chain.noteMac(head)];
}

/** Notes where a chain begins after a cut. */
export function cutStatement(chain: Chain, place: ChainPlace, time: number): Statement {
  return {
    sql: 'UPDATE api_key_chain_heads SET cut = ? WHERE process_id = ?',
    params: [cutText(chain, place, time), place.processId],
  };
}

function cutText(chain: Chain, place: ChainPlace, time: number): string {
  const { sequence, hash } = place;
  return JSON.stringify({ sequence, hash, time, mac: chain.cutMac(place, time) });
}

/** Notes that another chain names the end of this one. */
export function listedStatement(chain: Chain, { processId, sequence }: ChainPlace): Statement {
  const listed = JSON.stringify({ sequence, mac: chain.listedMac(processId, sequence) });
  return {
    sql: 'UPDATE api_key_chain_heads SET listed = ? WHERE process_id = ?',
    params: [listed, processId],
  };
}

/** Reads a row of the notes, even one that was tampered with. */
export function toHead(row: Record<string, Value>): ChainHead {
  const cut = objectOf(row.cut);
  const listed = objectOf(row.listed);
  return {
    processId: String(row.process_id),
    sequence: Number(row.sequence),
    hash: String(row.hash),
    closed: row.closed === '1',
    older: row.older === '1',
    mac: String(row.mac),
    ...(cut === undefined ? {} : { cut: cut as unknown as NonNullable<ChainHead['cut']> }),
    ...(listed === undefined ? {} : { listed: listed as unknown as NonNullable<ChainHead['listed']> }),
  };
}

/** Undefined for NULL; for invalid JSON, an object with a MAC that never matches. */
function objectOf(text: Value | undefined): object | undefined {
  if (text === null || text === undefined) return undefined;
  try {
    const parsed: unknown = JSON.parse(String(text));
    if (typeof parsed === 'object' && parsed !== null) return parsed;
  } catch {
    // Tampered with: falls through to the object below.
  }
  return { sequence: 0, hash: '', time: 0, mac: 'none' };
}

/** For the migration that signs the notes of earlier releases. */
export function addNoteFunctions(db: DatabaseSync, chain: Chain): void {
  db.function('note_mac', { deterministic: true }, (processId, sequence, hash, closed) =>
    chain.noteMac({
      processId: String(processId),
      sequence: Number(sequence),
      hash: String(hash),
      closed: closed === 1,
      older: true,
    }),
  );
  db.function('signed_cut', { deterministic: true }, (processId, cut) => {
    const { sequence, hash } = JSON.parse(String(cut)) as { sequence: number; hash: string };
    return cutText(chain, { processId: String(processId), sequence, hash }, 0);
  });
}

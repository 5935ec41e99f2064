import type { ChainHead, ChainLog, ChainPlace, ChainRow } from '../keys/ports/audit.ts';
import { type Chain, GENESIS } from './chain.ts';
import { type LostRange, statementOf } from './checkpoint.ts';
import { placeOf, valuesOf } from './fields.ts';

/**
 * CHANGED: the row is not as it was written. MISSING: rows before it are gone. INSERTED: its place belongs to another
 * row. TRUNCATED: the end of the chain, or the whole chain, is gone. NOTE: the note of the chain's end is gone or
 * forged. UNLISTED: lists do not show the row.
 */
export type DefectKind = 'CHANGED' | 'MISSING' | 'INSERTED' | 'TRUNCATED' | 'NOTE' | 'UNLISTED';

export interface Defect {
  readonly kind: DefectKind;
  readonly processId: string;
  /** The row that shows the defect; for TRUNCATED, the last row that is known to have existed. */
  readonly sequence: number;
  readonly eventId: string;
}

const OUTCOME = placeOf('outcome');
const REASON = placeOf('reason');
const HASHES_AT_ONCE = 500;

const keyOf = ({ processId, sequence }: { processId: string; sequence: number }) =>
  `${processId} ${sequence}`;

/** One pass over all chains. Its memory grows with the processes and checkpoints, not with the rows. */
export class VerificationRun {
  readonly #chain: Chain;
  readonly #order: ChainLog['order'];
  readonly #progress = new Map<string, ChainPlace>();
  #notes = new Map<string, ChainHead>();
  /** The last row of each chain that was read before the last notes. */
  #beforeNotes = new Map<string, ChainPlace>();
  /** Places that the pass must still find. */
  readonly #expected = new Map<string, ChainPlace>();
  /** Places that were named after the pass had read beyond them. */
  readonly #late: ChainPlace[] = [];
  /** The hashes at the places that callers kept; '' until the pass finds a place. */
  readonly #asked: Map<string, string>;
  /** The beginnings of chains that do not start at 1; below, the cuts and losses that chained events state. */
  readonly #begun: ChainPlace[] = [];
  readonly #cuts = new Map<string, Set<string>>();
  readonly #lastCut = new Map<string, number>();
  readonly #lost: LostRange[] = [];
  #contradiction: Defect | undefined;
  #checked = 0;

  /** @param places of the anchor, which must all exist @param asked places that callers kept */
  constructor(
    chain: Chain,
    order: ChainLog['order'],
    places: readonly ChainPlace[],
    asked: readonly ChainPlace[],
  ) {
    this.#chain = chain;
    this.#order = order;
    this.#asked = new Map(asked.map((place) => [keyOf(place), '']));
    for (const place of places) this.#expect(place);
  }

  get checkedEvents(): number {
    return this.#checked;
  }

  /** The last row of each chain that was read so far. */
  get heads(): ChainHead[] {
    return [...this.#progress.values()].map((place) => ({
      ...place,
      closed: false,
      older: this.#notes.get(place.processId)?.older === true,
    }));
  }

  /** Chains that may have grown since their rows were read. */
  get open(): ChainPlace[] {
    const begun = (processId: string) => ({ processId, sequence: 0, hash: GENESIS });
    return [...this.#notes.values()]
      .filter(
        ({ processId, sequence, closed }) =>
          !closed || sequence > (this.#progress.get(processId)?.sequence ?? 0),
      )
      .map(({ processId, cut }) => this.#progress.get(processId) ?? { ...begun(processId), ...cut });
  }

  /** Takes the current notes: the pass must find the end of each chain that they name. */
  takeNotes(heads: readonly ChainHead[]): void {
    this.#notes = new Map(heads.map((head) => [head.processId, head]));
    this.#beforeNotes = new Map(this.#progress);
    for (const head of heads) if (head.sequence > 0) this.#expect(head);
  }

  check(row: ChainRow): Defect | undefined {
    const { processId, sequence, hash } = row;
    const defect = (kind: DefectKind) => ({ kind, processId, sequence, eventId: row.id });
    if (row.flaw === 'CHANGED') return defect('CHANGED');
    const last = this.#progress.get(processId);
    if (sequence <= (last?.sequence ?? 0)) return defect('INSERTED');
    const before = this.#before(row, last);
    if (before === undefined) return defect('MISSING');
    if (this.#chain.next(before.hash, row, row.time, row.text) !== hash) return defect('CHANGED');
    const key = keyOf(row);
    if ((this.#expected.get(key)?.hash ?? hash) !== hash) return defect('CHANGED');
    if (row.flaw === 'UNLISTED') return defect('UNLISTED');
    this.#expected.delete(key);
    if (this.#asked.has(key)) this.#asked.set(key, hash);
    if (before.sequence > (last?.sequence ?? 0)) this.#begun.push(before);
    this.#progress.set(processId, { processId, sequence, hash });
    this.#listen(row.text);
    this.#checked++;
    return this.#contradiction;
  }

  /** The place that a row must follow: the previous row, the beginning, or the cut that the note states. */
  #before({ processId, sequence }: ChainRow, last: ChainPlace | undefined): ChainPlace | undefined {
    const before = last ?? { processId, sequence: 0, hash: GENESIS };
    if (sequence === before.sequence + 1) return before;
    const cut = this.#notes.get(processId)?.cut;
    return cut?.sequence === sequence - 1 ? { processId, sequence: cut.sequence, hash: cut.hash } : undefined;
  }

  #listen(text: string): void {
    // Most rows are events of calls: searching the text is cheaper than parsing it.
    if (!text.includes('CHECKPOINT') && !text.includes('RESTORED')) return;
    const values = valuesOf(text);
    const statement = statementOf(String(values[OUTCOME]), String(values[REASON]));
    if (statement?.kind === 'lost') this.#lost.push(...statement.ranges);
    else if (statement?.kind === 'heads') for (const place of statement.places) this.#expect(place);
    else if (statement?.kind === 'cut') {
      for (const { processId, sequence, hash } of statement.places) {
        const cuts = this.#cuts.get(processId) ?? new Set();
        this.#cuts.set(processId, cuts.add(`${sequence} ${hash}`));
        this.#lastCut.set(processId, Math.max(this.#lastCut.get(processId) ?? 0, sequence));
      }
    }
  }

  #expect(place: ChainPlace): void {
    const { processId, sequence, hash } = place;
    const passed = this.#progress.get(processId);
    const other = this.#expected.get(keyOf(place));
    const differs =
      (other !== undefined && other.hash !== hash) || (passed?.sequence === sequence && passed.hash !== hash);
    if (differs) this.#contradiction ??= { kind: 'CHANGED', processId, sequence, eventId: '' };
    else if (passed === undefined || passed.sequence < sequence)
      this.#expected.set(keyOf(place), { processId, sequence, hash });
    else if (passed.sequence > sequence) this.#late.push({ processId, sequence, hash });
  }

  /** Must run after all rows and after the notes that were read last. */
  async end(log: Pick<ChainLog, 'hashesAt'>): Promise<Defect | undefined> {
    return (
      this.#contradiction ??
      this.#wrongNote() ??
      this.#wrongCut() ??
      this.#firstOf(this.#expected.values(), (place) => this.missing(place)) ??
      (await this.#wrongLate(log))
    );
  }

  #firstOf<T>(all: Iterable<T>, defectOf: (one: T) => Defect | undefined): Defect | undefined {
    for (const one of all) {
      const defect = defectOf(one);
      if (defect !== undefined) return defect;
    }
    return undefined;
  }

  #wrongNote(): Defect | undefined {
    const wrong = (kind: DefectKind, processId: string, sequence: number): Defect => ({
      kind,
      processId,
      sequence,
      eventId: '',
    });
    const unnoted = this.#firstOf(this.#beforeNotes.values(), ({ processId, sequence }) =>
      this.#notes.has(processId) ? undefined : wrong('NOTE', processId, sequence),
    );
    if (unnoted !== undefined) return unnoted;
    return this.#firstOf(this.#notes.values(), (note) => {
      const { processId, sequence, closed, cut } = note;
      const seen = this.#progress.get(processId)?.sequence ?? cut?.sequence ?? 0;
      // A process that ended cleanly writes no more rows.
      if (closed && seen > sequence) return wrong('INSERTED', processId, sequence + 1);
      const listed =
        note.listed === undefined ||
        note.listed.mac === this.#chain.listedMac(processId, note.listed.sequence);
      if (note.mac !== this.#chain.noteMac(note) || !listed) return wrong('NOTE', processId, sequence);
      const exact = this.#order === 'WRITTEN';
      const behind = exact && sequence < (this.#beforeNotes.get(processId)?.sequence ?? 0);
      return behind || sequence < (cut?.sequence ?? 0) ? wrong('NOTE', processId, sequence) : undefined;
    });
  }

  /** Only a chained event that names a cut proves it. */
  #wrongCut(): Defect | undefined {
    const noted = [...this.#notes.values()].flatMap(({ processId, cut }) =>
      cut === undefined ? [] : [{ processId, ...cut }],
    );
    const forged = noted.find((cut) => cut.mac !== this.#chain.cutMac(cut, cut.time));
    const unproved = [...noted, ...this.#begun].find(
      ({ processId, sequence, hash }) => this.#cuts.get(processId)?.has(`${sequence} ${hash}`) !== true,
    );
    const wrong = forged ?? unproved;
    if (wrong === undefined) return undefined;
    const { processId, sequence } = wrong;
    return { kind: forged === undefined ? 'MISSING' : 'NOTE', processId, sequence, eventId: '' };
  }

  /** The defect of a named place that the pass has not found; undefined if a cut or a restore explains it. */
  missing({ processId, sequence, hash }: ChainPlace): Defect | undefined {
    const cut = this.#notes.get(processId)?.cut;
    const below = Math.max(cut?.sequence ?? 0, this.#lastCut.get(processId) ?? 0);
    const defect = (kind: DefectKind) => ({ kind, processId, sequence, eventId: '' });
    if (cut?.sequence === sequence && cut.hash !== hash) return defect('CHANGED');
    if (sequence <= below) return undefined;
    const lost = this.#lost.some(
      (range) => range.processId === processId && range.from <= sequence && sequence <= range.to,
    );
    return lost ? undefined : defect('TRUNCATED');
  }

  async #wrongLate(log: Pick<ChainLog, 'hashesAt'>): Promise<Defect | undefined> {
    const byChain = Map.groupBy(this.#late, ({ processId }) => processId);
    for (const [processId, places] of byChain) {
      for (let at = 0; at < places.length; at += HASHES_AT_ONCE) {
        const part = places.slice(at, at + HASHES_AT_ONCE);
        const hashes = await log.hashesAt(
          processId,
          part.map(({ sequence }) => sequence),
        );
        const wrong = this.#firstOf(part, (place) => {
          const stands = hashes.get(place.sequence);
          if (stands === undefined) return this.missing(place);
          return stands === place.hash
            ? undefined
            : { kind: 'CHANGED', processId, sequence: place.sequence, eventId: '' };
        });
        if (wrong !== undefined) return wrong;
      }
    }
    return undefined;
  }

  /** The defect for a caller that kept these places. */
  defectOf(kept: readonly ChainPlace[]): Defect | undefined {
    return this.#firstOf(kept, (place) => {
      const stands = this.#asked.get(keyOf(place)) ?? '';
      if (stands === '') return this.missing(place);
      const { processId, sequence } = place;
      return stands === place.hash ? undefined : { kind: 'CHANGED', processId, sequence, eventId: '' };
    });
  }
}

import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { AuditLog, ChainHead, ChainLog, ChainPlace } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Chain } from './chain.ts';
import { RESTORED, statementOf } from './checkpoint.ts';
import { synced } from './synced.ts';

const EVERY_MS = 1_000;
/** The interval for reading the ends of all chains, including those of other processes. */
const ALL_MS = 60_000;
/** The most chains in the file: the most recently changed ones stay. */
const MAX_CHAINS = 1_000;
const RESTORES = 100;

export interface AnchorParts {
  readonly file: string;
  readonly log: Pick<AuditLog, 'list'>;
  readonly chains: ChainLog;
  readonly chain: Chain;
  readonly clock: Clock;
  readonly warn: (text: string, error: unknown) => void;
  /** Called after each write with its success. */
  readonly written: (ok: boolean) => void;
}

/** The content of the file. Undefined: unreadable, or not written with the chain key. */
export type Anchored = readonly ChainPlace[] | undefined;

/**
 * Writes the ends of the chains to a file outside the store, each second if they changed. An attacker who can write to
 * the store but not to the file cannot replace the store by an earlier copy unnoticed.
 */
export class Anchor {
  readonly #parts: AnchorParts;
  #heads = new Map<string, ChainPlace>();
  #changed = false;
  #allRead = Number.NEGATIVE_INFINITY;
  #failing = false;
  /** The ends of the chains could not be read from the store. */
  #blind = false;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(parts: AnchorParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#timer = setInterval(() => void this.write(), EVERY_MS).unref();
  }

  /** Must run after the last event. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.write();
  }

  /** Writes changed ends. A failure is reported and does not stop the server. */
  write(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async #write(): Promise<void> {
    await this.#lookUp();
    if (!this.#changed) return;
    const { warn, written } = this.#parts;
    let failure = 'cannot be read';
    try {
      // Another process may write the same file: its ends are kept.
      const stands = await this.#places();
      if (stands === undefined)
        warn('AUDIT_ANCHOR_FILE was not what was written there: written anew', undefined);
      for (const place of stands ?? []) this.#take(place);
      failure = 'cannot be written';
      await this.#replace();
      this.#changed = false;
      this.#failing = false;
      written(true);
    } catch (error) {
      if (!this.#failing) warn(`AUDIT_ANCHOR_FILE ${failure}, trying again`, error);
      this.#failing = true;
      written(false);
    }
  }

  /** Reads the current ends. An unavailable store is not a failure of the file: the known ends are still written. */
  async #lookUp(): Promise<void> {
    const { chains, clock, warn } = this.#parts;
    try {
      this.#take(await chains.ownHead());
      if (clock.monotonic() - this.#allRead < ALL_MS) return;
      this.#allRead = clock.monotonic();
      for (const head of await chains.heads()) if (this.#isNote(head)) this.#take(head);
      this.#blind = false;
    } catch (error) {
      if (!this.#blind)
        warn("the store does not say where the audit's chains end: AUDIT_ANCHOR_FILE lacks that", error);
      this.#blind = true;
    }
  }

  #isNote(head: ChainHead): boolean {
    return head.sequence > 0 && head.mac === this.#parts.chain.noteMac(head);
  }

  #take(place: ChainPlace | undefined): void {
    if (place === undefined) return;
    const { processId, sequence, hash } = place;
    if ((this.#heads.get(processId)?.sequence ?? 0) >= sequence) return;
    this.#heads.delete(processId);
    this.#heads.set(processId, { processId, sequence, hash });
    const oldest = this.#heads.keys().next().value;
    if (this.#heads.size > MAX_CHAINS && oldest !== undefined) this.#heads.delete(oldest);
    this.#changed = true;
  }

  async #replace(): Promise<void> {
    const { file } = this.#parts;
    const heads = [...this.#heads.values()];
    const next = `${file}.${process.pid}.new`;
    const handle = await open(next, 'w', 0o600);
    try {
      await handle.writeFile(`${JSON.stringify({ heads, mac: this.#macOf(heads) })}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(next, file);
    await synced(dirname(file));
  }

  #macOf(heads: readonly ChainPlace[]): string {
    const parts = heads.flatMap(({ processId, sequence, hash }) => [processId, sequence, hash]);
    return this.#parts.chain.mac(['anchor', ...parts]);
  }

  /** After a restore: replaces all ends by those of the restored store. */
  async beginAnew(places: readonly ChainPlace[]): Promise<void> {
    this.#heads = new Map();
    for (const place of places) this.#take(place);
    await this.#replace();
  }

  /** Reads the file; an empty list when there is no file yet. */
  read(): Promise<Anchored> {
    return this.#places().catch(() => undefined);
  }

  /** @throws Error when the file cannot be read */
  async #places(): Promise<Anchored> {
    let text: string;
    try {
      text = await readFile(this.#parts.file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    try {
      const { heads, mac } = JSON.parse(text) as { heads: ChainPlace[]; mac: string };
      return heads.every(isPlace) && mac === this.#macOf(heads) ? heads : undefined;
    } catch {
      return undefined;
    }
  }

  /** At the start: the first place in the file that, by the notes, neither the store holds nor a restore has lost. */
  async firstLacking(): Promise<ChainPlace | 'UNREADABLE' | undefined> {
    const anchored = await this.read();
    if (anchored === undefined) return 'UNREADABLE';
    const { chains } = this.#parts;
    const notes = new Map((await chains.heads()).map((head) => [head.processId, head]));
    for (const place of anchored) {
      const note = notes.get(place.processId);
      if ((note?.cut?.sequence ?? 0) >= place.sequence || (note?.sequence ?? 0) > place.sequence) continue;
      if (note?.sequence === place.sequence && note.hash === place.hash) continue;
      // The note of a killed process may be older than its last rows.
      const hashes = await chains.hashesAt(place.processId, [place.sequence]);
      if (note !== undefined && hashes.get(place.sequence) === place.hash) continue;
      if (!(await this.#isLost(place))) return place;
    }
    for (const place of anchored) this.#take(place);
    return undefined;
  }

  async #isLost({ processId, sequence }: ChainPlace): Promise<boolean> {
    const page = { size: RESTORES, after: undefined };
    const { items } = await this.#parts.log.list({ outcome: RESTORED }, page);
    return items.some(({ outcome, reason }) => {
      const statement = statementOf(outcome, reason);
      if (statement?.kind !== 'lost') return false;
      return statement.ranges.some(
        (range) => range.processId === processId && range.from <= sequence && sequence <= range.to,
      );
    });
  }
}

function isPlace(place: unknown): boolean {
  const { processId, sequence, hash } = (place ?? {}) as Partial<ChainPlace>;
  return typeof processId === 'string' && Number.isSafeInteger(sequence) && typeof hash === 'string';
}

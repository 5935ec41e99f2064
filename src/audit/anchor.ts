import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { AuditLog, ChainHead, ChainLog, ChainPlace } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Chain } from './chain.ts';
import { RESTORED, statementOf } from './checkpoint.ts';
import { synced } from './synced.ts';

const EVERY_MS = 1_000;
/** How often the ends of all chains are looked up: those of other processes. */
const ALL_MS = 60_000;
/** Chains that the file holds: those that changed last. */
const MAX_CHAINS = 1_000;
const RESTORES = 100;

export interface AnchorParts {
  readonly file: string;
  readonly log: Pick<AuditLog, 'list'>;
  readonly chains: ChainLog;
  readonly chain: Chain;
  readonly clock: Clock;
  readonly warn: (text: string, error: unknown) => void;
  /** Told whether the file could be written. */
  readonly written: (ok: boolean) => void;
}

/** What the file says. Undefined: it was not written by somebody with the key, or by nobody. */
export type Anchored = readonly ChainPlace[] | undefined;

/**
 * The ends of the chains in a file outside the store, each second while there is something new: somebody who can write
 * to the store, and not to the file, cannot put an earlier copy in its place.
 */
export class Anchor {
  readonly #parts: AnchorParts;
  #heads = new Map<string, ChainPlace>();
  #changed = false;
  #allRead = Number.NEGATIVE_INFINITY;
  #failing = false;
  /** The store did not say where the chains end. */
  #blind = false;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(parts: AnchorParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#timer = setInterval(() => void this.write(), EVERY_MS).unref();
  }

  /** After the last event. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.write();
  }

  /** Writes what is new. A file that cannot be written is told, and does not stop anything. */
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
      // Another process may write to the same file.
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

  /** Where the chains end now. A store that is away is no failure of the file, and what is known goes to the file. */
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

  /** After a restore: what the store has now takes the place of what it had. */
  async beginAnew(places: readonly ChainPlace[]): Promise<void> {
    this.#heads = new Map();
    for (const place of places) this.#take(place);
    await this.#replace();
  }

  /** Nothing where there is no file yet. */
  read(): Promise<Anchored> {
    return this.#places().catch(() => undefined);
  }

  /** @throws what hinders reading */
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

  /** At the start, by the notes: the first place that the store lacks, and no restore names. */
  async firstLacking(): Promise<ChainPlace | 'UNREADABLE' | undefined> {
    const anchored = await this.read();
    if (anchored === undefined) return 'UNREADABLE';
    const { chains } = this.#parts;
    const notes = new Map((await chains.heads()).map((head) => [head.processId, head]));
    for (const place of anchored) {
      const note = notes.get(place.processId);
      if ((note?.cut?.sequence ?? 0) >= place.sequence || (note?.sequence ?? 0) > place.sequence) continue;
      if (note?.sequence === place.sequence && note.hash === place.hash) continue;
      // The note of a process that was killed may be behind its rows.
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

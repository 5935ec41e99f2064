import type { Lendable, RecentChange } from '../keys/ports/guards.ts';

const KEPT = 1_000;

interface Change extends RecentChange {
  /** A guard may know the key. */
  readonly local: boolean;
}

/** The last changes of keys, in order and without gaps, for answers that must be made without a wait. */
export class RecentChanges {
  #changes: Change[] = [];
  /** Every change after this revision is kept. */
  #base: number;
  #revision: number;
  readonly #shared: boolean;
  /** Changes whose predecessors were not reported yet: the writes of one batch end in any order. */
  readonly #early = new Map<number, Change>();
  #gapAllowed = false;
  #waiting = new Set<() => void>();

  /** @param shared another process may have shown a later revision to the guard than this one knows yet */
  constructor(revision: number, shared = false) {
    this.#shared = shared;
    this.#base = revision;
    this.#revision = revision;
  }

  get revision(): number {
    return this.#revision;
  }

  add(change: Change): void {
    if (change.revision <= this.#revision) return;
    this.#early.set(change.revision, change);
    if (this.#gapAllowed && !this.#early.has(this.#revision + 1)) this.restart(change.revision - 1);
    for (;;) {
      const next = this.#early.get(this.#revision + 1);
      if (next === undefined) return;
      this.#early.delete(next.revision);
      this.#revision = next.revision;
      this.#changes.push(next);
      if (this.#changes.length > 2 * KEPT) this.#changes.splice(0, this.#changes.length - KEPT);
      this.#base = Math.max(this.#base, (this.#changes[0]?.revision ?? 1) - 1);
      if (next.local) this.#wake();
    }
  }

  /** Changes up to here are not known: guards that have seen less drop everything. */
  restart(revision: number): void {
    this.#changes = [];
    this.#base = revision;
    this.#revision = revision;
    this.#gapAllowed = false;
    for (const early of this.#early.keys()) if (early <= revision) this.#early.delete(early);
    this.#wake();
  }

  /** The outcome of a write is unknown: it may have taken a revision that is never reported. */
  doubt(): void {
    this.#gapAllowed = true;
  }

  since(cursor: number): Omit<Lendable, 'leaseMs'> {
    const revision = this.#revision;
    if (cursor < this.#base || (cursor > revision && !this.#shared)) return { revision, changes: undefined };
    return { revision, changes: this.#changes.filter((change) => change.revision > cursor) };
  }

  /** Resolves when a key that a guard may know has changed after the cursor, or after `ms`. */
  async changed(cursor: number, ms: number, signal: AbortSignal): Promise<void> {
    const { changes } = this.since(cursor);
    if (changes === undefined || signal.aborted || changes.some((change) => (change as Change).local)) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      const timer = setTimeout(end, ms).unref();
      this.#waiting.add(end);
      signal.addEventListener('abort', end, { once: true });
    });
  }

  #wake(): void {
    for (const end of [...this.#waiting]) end();
  }
}

import type { AuditLog, AuditRecord, ChainHead } from '../keys/ports/audit.ts';
import { type Chain, GENESIS } from './chain.ts';
import { CHECKPOINT, checkpointReason } from './retention.ts';

const PAGE = 1_000;
const MAX_ATTEMPTS = 3;

/** CHANGED: not what was written. MISSING: rows before it are gone. INSERTED: a place that is taken. TRUNCATED: the end is gone. */
export type DefectKind = 'CHANGED' | 'MISSING' | 'INSERTED' | 'TRUNCATED';

export interface Defect {
  readonly kind: DefectKind;
  readonly processId: string;
  /** The row where it shows; of TRUNCATED, the last one that is known to have been there. */
  readonly sequence: number;
  readonly eventId: string;
}

export interface Verification {
  readonly checkedEvents: number;
  /** The first one that was found. */
  readonly defect: Defect | undefined;
  /** Where each chain ends, to be kept elsewhere. */
  readonly heads: readonly ChainHead[];
}

interface Progress {
  sequence: number;
  hash: string;
}

/** Reads every chain from its beginning and recomputes it. One at a time: a second one waits. */
export class AuditVerifier {
  readonly #log: Pick<AuditLog, 'readChains' | 'heads'>;
  readonly #chain: Chain;
  #running: Promise<unknown> = Promise.resolve();

  constructor(log: Pick<AuditLog, 'readChains' | 'heads'>, chain: Chain) {
    this.#log = log;
    this.#chain = chain;
  }

  /** @param kept heads that were kept elsewhere: the chains must still hold them. */
  verify(kept: readonly ChainHead[] = []): Promise<Verification> {
    const run = this.#running.then(() => this.#verifySteadily(kept));
    this.#running = run.catch(() => {});
    return run;
  }

  /** What retention cuts while a pass goes by looks like a defect: then the pass is made again. */
  async #verifySteadily(kept: readonly ChainHead[]): Promise<Verification> {
    for (let attempt = 1; ; attempt++) {
      const before = await this.#log.heads();
      const verification = await this.#verify(before, kept);
      if (verification.defect === undefined || attempt === MAX_ATTEMPTS) return verification;
      if (cutsOf(before) === cutsOf(await this.#log.heads())) return verification;
    }
  }

  async #verify(heads: readonly ChainHead[], kept: readonly ChainHead[]): Promise<Verification> {
    const run = new Run(this.#chain, [...heads, ...kept]);
    let after: readonly (string | number)[] | undefined;
    do {
      const page = await this.#log.readChains({ size: PAGE, after });
      for (const row of page.items) {
        const defect = run.check(row);
        if (defect !== undefined) return run.result(defect);
      }
      after = page.next;
      // Other calls go between the pages.
      await new Promise(setImmediate);
    } while (after !== undefined);
    return run.result(run.end(heads, kept));
  }
}

/** One pass over all chains. Remembers one place a process, whatever the number of rows. */
class Run {
  readonly #chain: Chain;
  readonly #progress = new Map<string, Progress>();
  /** Hashes that must be met on the way, by process and sequence. */
  readonly #expected = new Map<string, string>();
  readonly #cuts = new Map<string, NonNullable<ChainHead['cut']>>();
  /** The chains that begin after a cut, and what checkpoints must say of the cuts; they may come before or after. */
  readonly #begunAtCut = new Set<string>();
  readonly #reasonOfToken = new Map<string, string>();
  readonly #proved = new Set<string>();
  #checked = 0;

  constructor(chain: Chain, heads: readonly ChainHead[]) {
    this.#chain = chain;
    for (const { processId, sequence, hash, cut } of heads) {
      this.#expected.set(`${processId} ${sequence}`, hash);
      if (cut === undefined) continue;
      this.#cuts.set(processId, cut);
      this.#reasonOfToken.set(cut.token, checkpointReason(processId, cut));
    }
  }

  check(row: AuditRecord): Defect | undefined {
    const { processId, sequence, hash } = row;
    const defect = (kind: DefectKind) => ({ kind, processId, sequence, eventId: row.id });
    const before = this.#progress.get(processId) ?? this.#beginning(row);
    if (before === undefined || sequence > before.sequence + 1) return defect('MISSING');
    if (sequence <= before.sequence) return defect('INSERTED');
    if (this.#chain.hashOf(before.hash, row) !== hash) return defect('CHANGED');
    if ((this.#expected.get(`${processId} ${sequence}`) ?? hash) !== hash) return defect('CHANGED');
    this.#progress.set(processId, { sequence, hash });
    if (row.outcome === CHECKPOINT && this.#reasonOfToken.get(row.requestId) === row.reason)
      this.#proved.add(row.requestId);
    this.#checked++;
    return undefined;
  }

  /** Where a chain may begin: at 1, or after what retention has cut, as a checkpoint in a chain says. */
  #beginning({ processId, sequence }: AuditRecord): Progress | undefined {
    if (sequence === 1) return { sequence: 0, hash: GENESIS };
    const cut = this.#cuts.get(processId);
    if (cut === undefined || cut.sequence !== sequence - 1) return undefined;
    this.#begunAtCut.add(processId);
    return { sequence: cut.sequence, hash: cut.hash };
  }

  end(heads: readonly ChainHead[], kept: readonly ChainHead[]): Defect | undefined {
    for (const { processId, sequence, closed } of [...heads, ...kept]) {
      const cut = this.#cuts.get(processId)?.sequence ?? 0;
      const seen = Math.max(this.#progress.get(processId)?.sequence ?? 0, cut);
      if (seen < sequence) return { kind: 'TRUNCATED', processId, sequence, eventId: '' };
      // Nothing comes after a process that has ended cleanly.
      if (closed && seen > sequence)
        return { kind: 'INSERTED', processId, sequence: sequence + 1, eventId: '' };
    }
    for (const processId of this.#begunAtCut) {
      const cut = this.#cuts.get(processId);
      if (cut !== undefined && !this.#proved.has(cut.token))
        return { kind: 'MISSING', processId, sequence: cut.sequence, eventId: '' };
    }
    return undefined;
  }

  result(defect: Defect | undefined): Verification {
    const heads = [...this.#progress].map(([processId, place]) => ({ processId, ...place, closed: false }));
    return { checkedEvents: this.#checked, defect, heads };
  }
}

function cutsOf(heads: readonly ChainHead[]): string {
  return JSON.stringify(heads.map(({ processId, cut }) => [processId, cut?.sequence ?? 0]));
}

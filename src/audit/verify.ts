import { setTimeout as delay, setImmediate as yieldToCalls } from 'node:timers/promises';
import { ApiError } from '../keys/errors.ts';
import type { ChainHead, ChainLog, ChainPlace, ChainRow } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Anchored } from './anchor.ts';
import type { Chain } from './chain.ts';
import { type Defect, VerificationRun } from './verification-run.ts';

export type { Defect, DefectKind } from './verification-run.ts';

/** Rows between two pauses: they block the event loop for less than a millisecond. */
const PAGE = 128;
/** While calls are served, a pass rests so many times as long as it works: it takes a fifth of a core at most. */
const RESTS = 4;
const MAX_REST_MS = 50;
const MAX_ATTEMPTS = 3;
/** The most callers that may wait; a further one is refused. */
const MAX_WAITING = 64;

export interface Verification {
  readonly checkedEvents: number;
  /** The first defect found. */
  readonly defect: Defect | undefined;
  /** The end of each chain, for the caller to keep elsewhere. */
  readonly heads: readonly ChainHead[];
}

interface Waiting {
  readonly kept: readonly ChainPlace[];
  resolve(verification: Verification): void;
  reject(error: unknown): void;
}

export interface VerifierParts {
  readonly log: ChainLog;
  readonly chain: Chain;
  readonly clock: Clock;
  /** Reads the places that are kept outside the store. */
  readonly anchored?: (() => Promise<Anchored>) | undefined;
  /** Called once for each pass that found a defect. */
  readonly found?: (defect: Defect) => void;
  /** Called with the number of events verified so far. */
  readonly told?: (checkedEvents: number) => void;
  /** Waits; replaced in tests. */
  readonly rest?: (ms: number) => Promise<unknown>;
}

/**
 * Reads every chain from its beginning and recomputes it. One pass at a time; all callers that arrive during it share
 * the next one. A pass ends early when no caller waits for it. It rests only while this process serves calls, which its
 * own chain shows.
 */
export class AuditVerifier {
  readonly #parts: VerifierParts;
  readonly #delay: (ms: number) => Promise<unknown>;
  /** The end of the own chain at the last pause. */
  #served = 0;
  #running: Set<Waiting> | undefined;
  #next = new Set<Waiting>();

  constructor(parts: VerifierParts) {
    this.#parts = parts;
    this.#delay = parts.rest ?? delay;
  }

  /** @param kept places that the caller kept elsewhere: the chains must still contain them */
  verify(kept: readonly ChainPlace[] = [], signal?: AbortSignal): Promise<Verification> {
    if ((this.#running?.size ?? 0) + this.#next.size >= MAX_WAITING) {
      const text = 'too many callers wait for a verification of the audit';
      return Promise.reject(new ApiError('TOO_MANY_VERIFICATIONS', text, { retryAfterMs: 5_000 }));
    }
    return new Promise((resolve, reject) => {
      const waiting = { kept, resolve, reject };
      const leave = () => {
        this.#next.delete(waiting);
        this.#running?.delete(waiting);
        reject(new ApiError('REQUEST_NOT_RECEIVED', 'the caller went away'));
      };
      if (signal?.aborted === true) return leave();
      signal?.addEventListener('abort', leave, { once: true });
      this.#next.add(waiting);
      if (this.#running === undefined) void this.#start();
    });
  }

  async #start(): Promise<void> {
    while (this.#next.size > 0) {
      const waiting = this.#next;
      this.#running = waiting;
      this.#next = new Set();
      try {
        const run = await this.#verifySteadily(waiting);
        const results = [...waiting].map((one) => [one, resultFor(run, one.kept)] as const);
        const defect = results.find(([, result]) => result.defect !== undefined)?.[1].defect;
        if (defect !== undefined) this.#parts.found?.(defect);
        for (const [one, result] of results) one.resolve(result);
      } catch (error) {
        for (const one of waiting) one.reject(error);
      }
    }
    this.#running = undefined;
  }

  /** A cut by retention during a pass may look like a defect: then the pass is repeated. */
  async #verifySteadily(waiting: ReadonlySet<Waiting>): Promise<Finished> {
    for (let attempt = 1; ; attempt++) {
      const before = await this.#parts.log.heads();
      const finished = await this.#pass(before, waiting);
      if (finished.defect === undefined || attempt === MAX_ATTEMPTS || waiting.size === 0) return finished;
      if (cutsOf(before) === cutsOf(await this.#parts.log.heads())) return finished;
    }
  }

  async #pass(heads: readonly ChainHead[], waiting: ReadonlySet<Waiting>): Promise<Finished> {
    const { log, chain, anchored, told = () => {} } = this.#parts;
    const places = anchored === undefined ? [] : await anchored();
    const run = new VerificationRun(
      chain,
      log.order,
      places ?? [],
      [...waiting].flatMap(({ kept }) => kept),
    );
    run.takeNotes(heads);
    if (places === undefined)
      return { run, defect: { kind: 'NOTE', processId: '', sequence: 0, eventId: '' } };
    const wanted = () => waiting.size > 0;
    let last: ChainRow['cursor'] | undefined;
    for await (const row of this.#rows(undefined, wanted)) {
      const defect = await this.#check(run, row);
      if (defect !== undefined) return { run, defect };
      last = row.cursor;
      told(run.checkedEvents);
    }
    // The rows that these notes name are in the log by now: the tails below must contain them.
    run.takeNotes(await log.heads());
    const tails = log.order === 'WRITTEN' ? [{ after: last, processId: undefined }] : tailsOf(run.open);
    for (const { after, processId } of tails) {
      for await (const row of this.#rows(after, wanted)) {
        if (processId !== undefined && row.processId !== processId) break;
        const defect = await this.#check(run, row);
        if (defect !== undefined) return { run, defect };
      }
    }
    return { run, defect: (await run.end(log)) ?? (await this.#strayInLists(wanted)) };
  }

  /** Retention may have cut a chain since the notes were read: current notes name its new beginning. */
  async #check(run: VerificationRun, row: ChainRow): Promise<Defect | undefined> {
    const defect = run.check(row);
    if (defect?.kind !== 'MISSING') return defect;
    run.takeNotes(await this.#parts.log.heads());
    return run.check(row);
  }

  async *#rows(from: ChainRow['cursor'] | undefined, wanted: () => boolean): AsyncGenerator<ChainRow, void> {
    const { log, clock } = this.#parts;
    let page = await log.readChains({ size: PAGE, after: from });
    for (;;) {
      const { items, next } = page;
      const start = clock.monotonic();
      // The store reads the next page while this one is checked.
      const coming = next === undefined ? undefined : log.readChains({ size: PAGE, after: next });
      coming?.catch(() => {});
      yield* items;
      if (coming === undefined) return;
      page = await coming;
      await this.#pause(clock.monotonic() - start, wanted);
    }
  }

  /** @param workedMs since the last pause */
  async #pause(workedMs: number, wanted: () => boolean): Promise<void> {
    const { sequence = 0 } = (await this.#parts.log.ownHead()) ?? {};
    const serves = sequence > this.#served;
    this.#served = sequence;
    await (serves ? this.#delay(Math.min(MAX_REST_MS, RESTS * workedMs)) : yieldToCalls());
    if (!wanted()) throw new ApiError('REQUEST_NOT_RECEIVED', 'nobody waits for the verification');
  }

  async #strayInLists(wanted: () => boolean): Promise<Defect | undefined> {
    const { log, clock } = this.#parts;
    let after: ChainRow['cursor'] | undefined;
    do {
      const start = clock.monotonic();
      const { stray, next } = await log.checkLists(after);
      if (stray) return { kind: 'UNLISTED', processId: '', sequence: 0, eventId: '' };
      after = next;
      await this.#pause(clock.monotonic() - start, wanted);
    } while (after !== undefined);
    return undefined;
  }
}

interface Finished {
  readonly run: VerificationRun;
  readonly defect: Defect | undefined;
}

function resultFor({ run, defect }: Finished, kept: readonly ChainPlace[]): Verification {
  return { checkedEvents: run.checkedEvents, heads: run.heads, defect: defect ?? run.defectOf(kept) };
}

/** Where to continue chains that may have grown since their rows were read. */
function tailsOf(open: readonly ChainPlace[]) {
  return open.map(({ processId, sequence }) => ({ processId, after: [processId, sequence, '\uffff'] }));
}

function cutsOf(heads: readonly ChainHead[]): string {
  return JSON.stringify(heads.map(({ processId, cut }) => [processId, cut?.sequence ?? 0]));
}

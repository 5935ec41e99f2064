// If this fails, a key that may only look at the audit can keep a server busy with verifications for ever.
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Chain, GENESIS } from '../../src/audit/chain.ts';
import { ownEntry } from '../../src/audit/event.ts';
import { eventText } from '../../src/audit/fields.ts';
import { AuditVerifier } from '../../src/audit/verify.ts';
import type { ChainLog, ChainRow } from '../../src/keys/ports/audit.ts';
import { TestClock } from '../support/clock.ts';

const chain = new Chain(undefined);
const text = eventText(ownEntry({ time: 1, outcome: 'OK', reason: '' }));

/** A log whose pages, of one row each, wait until the test lets them go. */
class GatedLog {
  pages = 0;
  passes = 0;
  #gates: (() => void)[] = [];
  readonly #rows: ChainRow[] = [];

  constructor(events: number) {
    let hash = GENESIS;
    for (let sequence = 1; sequence <= events; sequence++) {
      const link = { id: `p-${sequence}`, processId: 'p', sequence, servedBy: '' };
      hash = chain.next(hash, link, 1, text);
      this.#rows.push({ ...link, hash, time: 1, text, cursor: [sequence] });
    }
  }

  get log(): ChainLog {
    const last = this.#rows.at(-1) as ChainRow;
    const head = { processId: 'p', sequence: last.sequence, hash: last.hash, closed: true, mac: '' };
    return {
      order: 'WRITTEN',
      processId: 'q',
      heads: async () => [head],
      checkLists: async () => ({ stray: false, next: undefined }),
      readChains: async ({ after }: { after: readonly (string | number)[] | undefined }) => {
        this.pages++;
        if (after === undefined) this.passes++;
        await new Promise<void>((resolve) => this.#gates.push(resolve));
        const at = Number(after?.[0] ?? 0);
        const item = this.#rows[at];
        const items = item === undefined ? [] : [item];
        return { items, next: at + 1 < this.#rows.length ? [at + 1] : undefined };
      },
    } as unknown as ChainLog;
  }

  /** Lets everything go from now on. */
  async flow(until: Promise<unknown>): Promise<void> {
    let over = false;
    void until.finally(() => {
      over = true;
    });
    while (!over) {
      for (const go of this.#gates.splice(0)) go();
      await delay(1);
    }
  }
}

const verifierOf = (gated: GatedLog) => new AuditVerifier({ log: gated.log, chain, clock: new TestClock() });

describe('verifications', () => {
  it('are shared by all who ask while one is under way', async () => {
    const gated = new GatedLog(3);
    const verifier = verifierOf(gated);
    const all = Promise.all(Array.from({ length: 20 }, () => verifier.verify()));
    await gated.flow(all);
    expect(
      (await all).every(({ defect, checkedEvents }) => defect === undefined && checkedEvents === 3),
    ).toBe(true);
    expect(gated.passes).toBe(2);
  });

  it('tell each caller of its own heads only', async () => {
    const gated = new GatedLog(3);
    const verifier = verifierOf(gated);
    const wrong = [{ processId: 'p', sequence: 2, hash: 'f'.repeat(64) }];
    const all = Promise.all([verifier.verify(), verifier.verify(wrong), verifier.verify()]);
    await gated.flow(all);
    const [, second, third] = await all;
    expect(second?.defect).toMatchObject({ kind: 'CHANGED', sequence: 2 });
    expect(third?.defect).toBeUndefined();
  });

  it('end when nobody waits for them any more', async () => {
    const gated = new GatedLog(100);
    const verifier = verifierOf(gated);
    const gone = new AbortController();
    const refused = expect(verifier.verify([], gone.signal)).rejects.toMatchObject({
      code: 'REQUEST_NOT_RECEIVED',
    });
    gone.abort();
    await refused;
    const next = verifier.verify();
    await gated.flow(next);
    // The page that was under way, and the whole of the next one.
    expect(gated.pages).toBeLessThan(105);
  });

  it('refuse callers beyond those that may wait', async () => {
    const gated = new GatedLog(1);
    const verifier = verifierOf(gated);
    const waiting = Promise.all(Array.from({ length: 64 }, () => verifier.verify()));
    await expect(verifier.verify()).rejects.toMatchObject({ code: 'TOO_MANY_VERIFICATIONS' });
    await gated.flow(waiting);
  });
});

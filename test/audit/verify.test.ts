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
  /** Calls that the process serves between two looks at its chain. */
  served = 0;
  #own = 0;
  #gates: (() => void)[] = [];
  readonly #rows: ChainRow[] = [];

  readonly #worked: () => void;

  /** @param worked called when a page is read */
  constructor(events: number, worked = () => {}) {
    this.#worked = worked;
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
      ownHead: async () => {
        this.#own += this.served;
        return { processId: 'q', sequence: this.#own, hash: GENESIS };
      },
      heads: async () => [head],
      checkLists: async () => ({ stray: false, next: undefined }),
      readChains: async ({ after }: { after: readonly (string | number)[] | undefined }) => {
        this.pages++;
        if (after === undefined) this.passes++;
        await new Promise<void>((resolve) => this.#gates.push(resolve));
        this.#worked();
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

  it('rest while the process serves calls, four times as long as they work, and else not at all', async () => {
    const restsOf = async (served: number, workMs: number) => {
      const clock = new TestClock();
      const gated = new GatedLog(5, () => clock.advance(workMs));
      gated.served = served;
      const rests: number[] = [];
      const rest = async (ms: number) => void rests.push(ms);
      const all = new AuditVerifier({ log: gated.log, chain, clock, rest }).verify();
      await gated.flow(all);
      expect((await all).checkedEvents).toBe(5);
      return rests;
    };
    expect(await restsOf(0, 2)).toEqual([]);
    // Four pauses between five pages of the pass, and one after the lists.
    expect(await restsOf(1, 2)).toEqual([8, 8, 8, 8, 0]);
    expect(await restsOf(1, 1_000)).toEqual([50, 50, 50, 50, 0]);
  });

  it('refuse callers beyond those that may wait', async () => {
    const gated = new GatedLog(1);
    const verifier = verifierOf(gated);
    const waiting = Promise.all(Array.from({ length: 64 }, () => verifier.verify()));
    await expect(verifier.verify()).rejects.toMatchObject({ code: 'TOO_MANY_VERIFICATIONS' });
    await gated.flow(waiting);
  });
});

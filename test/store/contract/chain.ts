import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Chain } from '../../../src/audit/chain.ts';
import { Retention } from '../../../src/audit/retention.ts';
import { AuditVerifier } from '../../../src/audit/verify.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { entryWith, keyWith } from '../../support/keys.ts';
import type { Adapter } from './harness.ts';

/** The audit's hash chains: what was done to the log behind the store's back is found and named. */
export function chainContract(adapter: Adapter): void {
  describe(`${adapter.name}: the audit's chains`, () => {
    let url: string;
    let store: Store;
    const clock = new TestClock();
    beforeEach(async () => {
      url = adapter.freshUrl();
      store = await adapter.open(url, clock);
    });
    afterEach(() => store.close());

    const verify = (kept: Parameters<AuditVerifier['verify']>[0] = [], key?: Uint8Array) =>
      new AuditVerifier({ log: store.chainLog, chain: new Chain(key), clock }).verify(kept);
    const reopen = async () => {
      await store.close();
      store = await adapter.open(url, clock);
    };
    /** Events of several processes, changes among them. */
    const filled = async (events = 40) => {
      for (let process = 0; process < 3; process++) {
        await Promise.all(
          Array.from({ length: events }, (_, i) =>
            store.audit.record(entryWith({ time: 1_000 + i, requestId: `r${i}` })),
          ),
        );
        const { key } = keyWith();
        await store.keys.insert(key, entryWith({ time: 2_000 }));
        await store.keys.insert(keyWith({ id: key.id }).key, entryWith());
        await reopen();
      }
      return (await store.chainLog.readChains({ size: 1_000, after: undefined })).items;
    };

    it('hold over restarts, changes and refused changes', async () => {
      await filled();
      expect(await verify()).toMatchObject({ checkedEvents: 125, defect: undefined });
      expect((await store.chainLog.heads()).filter(({ closed }) => closed)).toHaveLength(3);
    });

    it.each(['changed', 'removed', 'swapped', 'inserted', 'truncated'] as const)(
      'show a row that was %s, and name it',
      async (how) => {
        const rows = await filled();
        const first = rows.filter(({ processId }) => processId === rows[0]?.processId);
        const victim = how === 'truncated' ? first.at(-1) : rows[17];
        if (victim === undefined) throw new Error('no row');
        await store.close();
        await adapter.tamper(url, how, victim);
        store = await adapter.open(url, clock);
        const { defect } = await verify();
        const { processId, sequence } = victim;
        const named = {
          changed: { kind: 'CHANGED', sequence },
          removed: { kind: 'MISSING', sequence: sequence + 1 },
          swapped: { kind: 'CHANGED', sequence },
          inserted: { kind: 'INSERTED' },
          truncated: { kind: 'TRUNCATED', sequence },
        }[how];
        expect(defect).toMatchObject({ processId, ...named });
      },
    );

    it('show that a chain was shortened together with its head, by what later chains say and to whoever kept the head', async () => {
      const rows = await filled();
      const { heads } = await verify();
      expect((await verify(heads)).defect).toBeUndefined();
      const last = rows[40];
      if (last === undefined) throw new Error('no row');
      await store.close();
      await adapter.tamper(url, 'truncated', last);
      await adapter.tamper(url, 'headless', last);
      store = await adapter.open(url, clock);
      expect((await verify()).defect).toBeDefined();
      expect((await verify(heads)).defect).toMatchObject({ processId: last.processId });
    });

    it('cannot be forged without the key', async () => {
      const key = Buffer.from('0123456789abcdef0123456789abcdef');
      await store.close();
      store = await adapter.open(url, clock, key);
      await store.audit.record(entryWith());
      expect((await verify([], key)).defect).toBeUndefined();
      expect((await verify()).defect).toMatchObject({ kind: 'CHANGED', sequence: 1 });
    });

    it('leave a verifiable rest when the oldest are deleted, and show a deletion that nobody noted', async () => {
      await filled();
      const retention = new Retention(store.audit, store.chainLog, clock);
      await store.usage.flush();
      let deleted = 0;
      for (let n = 1; n > 0; deleted += n) n = await retention.deleteBefore(1_030, 25);
      // Of each process the first 30; behind what is younger nothing is deleted.
      expect(deleted).toBeGreaterThanOrEqual(30);
      expect((await verify()).defect).toBeUndefined();
      // The process that wrote the checkpoints has a chain too; which chain comes first is chance.
      const rest = (await store.chainLog.readChains({ size: 1_000, after: undefined })).items;
      const first = rest.find(
        ({ processId }, i) =>
          i === rest.findIndex((row) => row.processId === processId) && rest[i]?.sequence !== 1,
      );
      expect(first?.sequence).toBe(31);
      if (first === undefined) throw new Error('no row');
      await store.close();
      await adapter.tamper(url, 'removed', first);
      store = await adapter.open(url, clock);
      expect((await verify()).defect).toMatchObject({ kind: 'MISSING', sequence: 32 });
    });

    it('verify while events are written and others deleted', async () => {
      await filled();
      const retention = new Retention(store.audit, store.chainLog, clock);
      let over = false;
      const writing = (async () => {
        while (!over) {
          await store.audit.record(entryWith({ time: 1_000 }));
          await store.usage.flush();
          await retention.deleteBefore(1_001, 3);
        }
      })();
      for (let i = 0; i < 5; i++) expect((await verify()).defect).toBeUndefined();
      over = true;
      await writing;
    });
  });
}

import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Anchor } from '../../../src/audit/anchor.ts';
import { CHECKPOINT, type LostRange, restoredEntry } from '../../../src/audit/checkpoint.ts';
import { Checkpoints } from '../../../src/audit/checkpoints.ts';
import { Retention } from '../../../src/audit/retention.ts';
import { AuditVerifier } from '../../../src/audit/verify.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { allPages, entryWith } from '../../support/keys.ts';
import { type LedgerStore, remove, removeNote } from '../tampering/ledger.ts';
import type { Adapter } from './harness.ts';

const DAY_MS = 86_400_000;
const KEY = randomBytes(32);

/** What proves the audit beyond the rows: the anchor, checkpoints, cuts that stay proved, and restores. */
export function proofContract(adapter: Adapter, ledger: LedgerStore): void {
  describe(`${adapter.name}: the audit's proof`, () => {
    let folder: string;
    let url: string;
    let clock: TestClock;
    let open: Set<Store>;
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'apikeyd-proof-'));
      url = adapter.freshUrl();
      clock = new TestClock();
      open = new Set();
    });
    afterEach(async () => {
      for (const store of open) await store.close();
      rmSync(folder, { recursive: true });
    });

    const opened = async () => {
      const store = await adapter.open(url, clock, KEY);
      open.add(store);
      return store;
    };
    const closed = async (store: Store) => {
      open.delete(store);
      await store.close();
    };
    const write = async ({ audit }: Store, events: number, time = clock.now()) => {
      for (let i = 0; i < events; i++) await audit.record(entryWith({ time }));
    };
    const anchorOf = ({ audit, chainLog, chain }: Store) =>
      new Anchor({
        file: join(folder, 'anchor'),
        log: audit,
        chains: chainLog,
        chain,
        clock,
        warn: (text, error) => {
          throw new Error(text, { cause: error });
        },
        written: () => {},
      });
    const defectOf = async (store: Store, anchor?: Anchor) => {
      const anchored = anchor && (() => anchor.read());
      const verifier = new AuditVerifier({ log: store.chainLog, chain: store.chain, clock, anchored });
      return (await verifier.verify()).defect;
    };
    const statements = async ({ audit }: Store) =>
      (await allPages((page) => audit.list({ outcome: CHECKPOINT }, page))).map(({ reason }) => reason);
    const checkpointsOf = ({ audit, chainLog, chain }: Store) =>
      new Checkpoints(audit, chainLog, chain, clock);

    it('an earlier copy is found at the start and by VerifyAudit, unless a restore names all that it lacks', async () => {
      const before = await opened();
      const { processId } = before.chainLog;
      await write(before, 3);
      const copy = await ledger.read(url);
      await write(before, 5);
      await anchorOf(before).write();
      await closed(before);
      expect(await anchorOf(await opened()).firstLacking()).toBeUndefined();
      for (const store of open) await closed(store);

      await ledger.write(url, copy);
      const after = await opened();
      const anchor = anchorOf(after);
      const found = { processId, sequence: 8 };
      const restored = (range: Partial<LostRange>) =>
        after.audit.record(restoredEntry([{ processId, from: 4, to: 8, ...range }], clock.now()));
      for (const range of [{ to: 7 }, { processId: 'another' }, { from: 9, to: 12 }]) {
        expect(await anchor.firstLacking()).toMatchObject(found);
        expect(await defectOf(after, anchor)).toMatchObject({ kind: 'TRUNCATED', ...found });
        await restored(range);
      }
      expect(await anchor.firstLacking()).toMatchObject(found);
      expect(await defectOf(after, anchor)).toMatchObject({ kind: 'TRUNCATED', ...found });
      await restored({});
      expect(await anchor.firstLacking()).toBeUndefined();
      expect(await defectOf(after, anchor)).toBeUndefined();
      // The excused place stays in the file, and stays excused.
      await anchor.write();
      expect(await anchor.firstLacking()).toBeUndefined();
      expect(await defectOf(after, anchor)).toBeUndefined();
    });

    it('a chain that retention has deleted is no defect to the anchor', async () => {
      const before = await opened();
      await write(before, 3, clock.now() - 100 * DAY_MS);
      await anchorOf(before).write();
      await before.usage.flush();
      await closed(before);
      const after = await opened();
      expect(
        await new Retention(after.audit, after.chainLog, clock).deleteBefore(clock.now() - DAY_MS, 100),
      ).toBe(3);
      expect(await anchorOf(after).firstLacking()).toBeUndefined();
      expect(await defectOf(after, anchorOf(after))).toBeUndefined();
    });

    it('a deletion says so before it deletes; one that a crash cut short is no defect, and the next ends it', async () => {
      const before = await opened();
      const { processId } = before.chainLog;
      await write(before, 5, clock.now() - 100 * DAY_MS);
      await before.usage.flush();
      await closed(before);
      const whole = await ledger.read(url);
      const old = clock.now() - DAY_MS;
      let store = await opened();
      const { audit, chainLog } = store;
      const away = () => Promise.reject(new Error('killed'));
      const chains = {
        expiredPrefixes: (time: number, limit: number) => chainLog.expiredPrefixes(time, limit),
        heads: () => chainLog.heads(),
        noteCut: (...args: Parameters<typeof chainLog.noteCut>) => chainLog.noteCut(...args),
        cut: away,
      };
      const all = [1, 2, 3, 4, 5];
      for (const [log, said] of [
        [{ record: away }, 0],
        [audit, 1],
      ] as const) {
        await expect(new Retention(log, chains, clock).deleteBefore(old, 100)).rejects.toThrow('killed');
        expect((await chainLog.hashesAt(processId, all)).size).toBe(5);
        expect((await statements(store)).filter((reason) => reason.startsWith('cut '))).toHaveLength(said);
        expect(await defectOf(store)).toBeUndefined();
      }
      expect(await new Retention(audit, chainLog, clock).deleteBefore(old, 100)).toBe(5);
      // The note stands and the rows are there again: as it is before they go.
      await closed(store);
      const { rows, notes } = await ledger.read(url);
      await ledger.write(url, { rows: [...whole.rows, ...rows], notes });
      store = await opened();
      expect((await store.chainLog.hashesAt(processId, all)).size).toBe(5);
      expect(await defectOf(store)).toBeUndefined();
      expect(await new Retention(store.audit, store.chainLog, clock).deleteBefore(old, 100)).toBe(5);
      expect((await store.chainLog.hashesAt(processId, all)).size).toBe(0);
      expect(await defectOf(store)).toBeUndefined();
    });

    it('a deletion stays proved for as long as the log is kept, however often its events are deleted too', async () => {
      const before = await opened();
      const gone = before.chainLog.processId;
      await write(before, 3, clock.now() - 100 * DAY_MS);
      await before.usage.flush();
      await closed(before);
      const store = await opened();
      const retention = new Retention(store.audit, store.chainLog, clock);
      const said = async () =>
        (await statements(store)).filter((reason) => reason.startsWith('cut ') && reason.includes(gone));
      for (let day = 0; day <= 300; day += 10) {
        await write(store, 1);
        await store.usage.flush();
        await retention.deleteBefore(clock.now() - 90 * DAY_MS, 100);
        // Said again in the last tenth of its life, and not each time.
        expect((await said()).length).toBeGreaterThanOrEqual(1);
        expect((await said()).length).toBeLessThanOrEqual(2);
        clock.advance(10 * DAY_MS);
      }
      expect(await defectOf(store)).toBeUndefined();
    });

    it('a first event names the chains before it, and the checkpoints every three minutes nothing that is named', async () => {
      const before = await opened();
      await write(before, 3);
      await closed(before);
      const store = await opened();
      const checkpoints = checkpointsOf(store);
      await write(store, 1);
      // The first look notes what the first events name.
      await store.sharing?.start(() => {});
      const named = await statements(store);
      expect(named).toEqual([expect.stringMatching(`^heads ${before.chainLog.processId} 3 [0-9a-f]{64}$`)]);
      for (let i = 0; i < 5; i++) {
        clock.advance(180_000);
        await checkpoints.tick();
      }
      expect(await statements(store)).toEqual(named);
      expect(await defectOf(store)).toBeUndefined();
    });

    it.runIf(adapter.severalProcesses)(
      'a chain that vanishes with its note is missed by a process that runs on beside it, after three minutes',
      async () => {
        const [stays, ends] = [await opened(), await opened()];
        const checkpoints = checkpointsOf(stays);
        await write(stays, 1);
        await write(ends, 4);
        await closed(ends);
        const { processId } = ends.chainLog;
        const saying = async () => (await statements(stays)).filter((reason) => reason.includes(processId));
        clock.advance(179_999);
        await checkpoints.tick();
        const early = (await saying()).length;
        clock.advance(1);
        await checkpoints.tick();
        const last = ` ${(await stays.chainLog.heads()).find((head) => head.processId === processId)?.sequence} `;
        expect((await saying()).filter((reason) => reason.includes(last))).toHaveLength(1);
        expect(await saying()).toHaveLength(early + 1);
        clock.advance(180_000);
        await checkpoints.tick();
        expect(await saying()).toHaveLength(early + 1);
        expect(await defectOf(stays)).toBeUndefined();
        await closed(stays);

        const rest = await ledger.read(url);
        remove(rest, (row) => row.processId === processId);
        removeNote(rest, processId);
        await ledger.write(url, rest);
        expect(await defectOf(await opened())).toMatchObject({ kind: 'TRUNCATED', processId });
      },
    );
  });
}

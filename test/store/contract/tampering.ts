import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Retention } from '../../../src/audit/retention.ts';
import { AuditVerifier } from '../../../src/audit/verify.ts';
import type { ChainPlace } from '../../../src/keys/ports/audit.ts';
import type { Store } from '../../../src/store/store.ts';
import { TestClock } from '../../support/clock.ts';
import { entryWith } from '../../support/keys.ts';
import { copyOf, type Ledger, type LedgerStore, processesOf } from '../tampering/ledger.ts';
import type { Finder, Scene } from '../tampering/scene.ts';
import { TAMPERINGS } from '../tampering/table.ts';
import type { Adapter } from './harness.ts';

const FINDERS: readonly Finder[] = ['store', 'anchor', 'heads'];
const clock = new TestClock();

const verifierOf = ({ chainLog, chain }: Store, anchored: readonly ChainPlace[]) =>
  new AuditVerifier({ log: chainLog, chain, clock, anchored: async () => anchored });

/** A store with three chains, what was kept of it, and what it was before. */
export class Stage {
  url = '';
  full: Ledger = { rows: [], notes: [] };
  scene!: Scene;
  anchor: readonly ChainPlace[] = [];
  heads: readonly ChainPlace[] = [];
  readonly key: Uint8Array | undefined;
  readonly #adapter: Pick<Adapter, 'freshUrl' | 'open'>;
  readonly #ledger: LedgerStore;

  constructor(adapter: Pick<Adapter, 'freshUrl' | 'open'>, ledger: LedgerStore, key: Uint8Array | undefined) {
    this.#adapter = adapter;
    this.#ledger = ledger;
    this.key = key;
  }

  async set(): Promise<void> {
    this.url = this.#adapter.freshUrl();
    const write = async (store: Store, from: number, events: number) => {
      for (let i = 0; i < events; i++)
        await store.audit.record(
          entryWith({
            time: from + i,
            keyId: `key-${i % 3}`,
            clientIp: `192.0.2.${i % 2}`,
            requestId: `r${i}`,
          }),
        );
    };
    await this.use((store) => write(store, 1_000, 8));
    const longAgo = await this.use(async (store) => {
      await write(store, 2_000, 5);
      const then = await this.#ledger.read(this.url);
      await store.usage.flush();
      const retention = new Retention(store.audit, store.chainLog, clock);
      expect(await retention.deleteBefore(1_003, 3)).toBe(3);
      await write(store, 2_100, 5);
      return then;
    });
    const earlier = await this.use(async (store) => {
      await write(store, 3_000, 7);
      const then = await this.#ledger.read(this.url);
      this.anchor = (await verifierOf(store, []).verify()).heads;
      await write(store, 3_100, 1);
      return then;
    });
    this.heads = (await this.use((store) => verifierOf(store, []).verify())).heads;
    this.full = await this.#ledger.read(this.url);
    const [first = '', middle = '', last = ''] = processesOf(this.full);
    this.scene = { first, middle, last, earlier, longAgo };
  }

  async use<T>(what: (store: Store) => Promise<T>): Promise<T> {
    const store = await this.#adapter.open(this.url, clock, this.key);
    try {
      return await what(store);
    } finally {
      await store.close();
    }
  }

  /** Who finds what was done. */
  async findersOf(tamper: (ledger: Ledger, scene: Scene) => void): Promise<readonly Finder[]> {
    const ledger = copyOf(this.full);
    tamper(ledger, this.scene);
    await this.#ledger.write(this.url, ledger);
    return this.use(async (store) => {
      const found = {
        store: (await verifierOf(store, []).verify()).defect,
        anchor: (await verifierOf(store, this.anchor).verify()).defect,
        heads: (await verifierOf(store, []).verify(this.heads)).defect,
      };
      return FINDERS.filter((finder) => found[finder] !== undefined);
    });
  }
}

/** What can be done to the log by somebody who can write to the store, and who finds it. */
export function tamperingContract(adapter: Adapter, ledger: LedgerStore, name: 'sqlite' | 'mongo'): void {
  describe.each([
    ['without a chain key', undefined],
    ['with a chain key', randomBytes(32)],
  ] as const)(`${adapter.name}: tampering with an audit %s`, (_, key) => {
    const stage = new Stage(adapter, ledger, key);
    beforeAll(() => stage.set());
    // The next suite on this database must find its index.
    afterAll(() => ledger.write(stage.url, stage.full));

    it('is not found where nothing was done', async () => {
      expect(await stage.findersOf(() => {})).toEqual([]);
    });

    const here = TAMPERINGS.filter(({ only }) => only === undefined || only === name);
    it.each(here)('is found: $name', async ({ without, withKey, do: tamper }) => {
      expect(await stage.findersOf(tamper)).toEqual(key === undefined ? without : withKey);
    });
  });
}

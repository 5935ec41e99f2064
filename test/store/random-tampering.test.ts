// If this fails, somebody who can write to the store changes the audit in a way that nobody thought of, unseen.
import { randomBytes } from 'node:crypto';
import { expect, inject, it, onTestFinished } from 'vitest';
import { Retention } from '../../src/audit/retention.ts';
import { AuditVerifier } from '../../src/audit/verify.ts';
import type { ChainPlace } from '../../src/keys/ports/audit.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import type { Store } from '../../src/store/store.ts';
import { onEachStore } from '../rpc/cases.ts';
import { TestClock } from '../support/clock.ts';
import { entryWith } from '../support/keys.ts';
import { freshDatabase, type StoreKind } from '../support/server.ts';
import { LEASE, LOCKOUT } from './contract/harness.ts';
import {
  changed,
  copyOf,
  type Ledger,
  type LedgerNote,
  type LedgerStore,
  relink,
} from './tampering/ledger.ts';
import { mongoLedger } from './tampering/mongo-ledger.ts';
import { sqliteLedger } from './tampering/sqlite-ledger.ts';

const LONG = process.env.LONG === '1';
/** Stores and tamperings of each: a thousand in the long run, of each kind of store. */
const STORES = LONG ? { sqlite: 40, mongo: 40 } : { sqlite: 3, mongo: 1 };
const TAMPERINGS = LONG ? 25 : 8;
const SEED = 20_250_101;

const KINDS: Record<StoreKind, { open: typeof openSqliteStore; ledger: LedgerStore }> = {
  sqlite: { open: openSqliteStore, ledger: sqliteLedger },
  mongo: { open: openMongoStore, ledger: mongoLedger },
};
const clock = new TestClock();

/** The same numbers in each run. */
function numbersFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

type Next = (below: number) => number;
const pick = <T>(from: readonly T[], next: Next) => from[next(from.length)] as T;

/** Of a chain that retention has deleted whole the event that says so is the proof, and its note is none. */
function noteWithRows({ rows, notes }: Ledger, next: Next): LedgerNote {
  const note = pick(notes, next);
  if (!rows.some(({ processId }) => processId === note.processId)) throw new Error('no rows');
  return note;
}

/** Each changes something, or throws when there is nothing that it could change. */
const CHANGES: readonly ((ledger: Ledger, next: Next, earlier: Ledger) => void)[] = [
  ({ rows }, next) => {
    const row = pick(rows, next);
    row.text = changed(row.text, { reason: `other ${next(1e6)}` });
  },
  (ledger, next) => {
    const row = pick(ledger.rows, next);
    row.text = changed(row.text, { cost: 1_000 + next(1_000) });
    relink(ledger, row.processId);
  },
  ({ rows }, next) => {
    pick(rows, next).time += 1 + next(1_000);
  },
  ({ rows }, next) => {
    rows.splice(next(rows.length), 1 + next(4));
  },
  ({ rows }, next) => {
    const { row: _, ...twin } = pick(rows, next);
    rows.push({ ...twin, sequence: Number(twin.sequence) + next(20) - 5 });
  },
  ({ rows }, next) => {
    const { processId } = pick(rows, next);
    rows.push({
      id: '',
      processId,
      sequence: -next(100),
      hash: 'e'.repeat(64),
      time: 1,
      text: '[]',
      row: -1,
    });
  },
  (ledger, next) => {
    const { processId } = noteWithRows(ledger, next);
    ledger.rows = ledger.rows.filter((row) => row.processId !== processId);
    if (next(2) === 0) ledger.notes = ledger.notes.filter((note) => note.processId !== processId);
  },
  (ledger, next) => {
    ledger.notes.splice(ledger.notes.indexOf(noteWithRows(ledger, next)), 1);
  },
  ({ notes }, next) => {
    pick(notes, next).sequence += 1 + next(3);
  },
  ({ notes }, next) => {
    pick(notes, next).hash = `${next(10)}`.repeat(64);
  },
  ({ notes }, next) => {
    const note = pick(notes, next);
    note.closed = !note.closed;
  },
  ({ notes }, next) => {
    const { sequence, hash } = pick(notes, next);
    pick(notes, next).cut = { sequence, hash, time: next(1_000), mac: 'd'.repeat(64) };
  },
  (ledger, _next, earlier) => {
    Object.assign(ledger, copyOf(earlier));
  },
  ({ notes }, next, earlier) => {
    const old = pick(earlier.notes, next);
    const note = notes.find(({ processId }) => processId === old.processId);
    if (note === undefined || note.sequence === old.sequence) throw new Error('the same');
    Object.assign(note, old);
  },
];

class RandomStore {
  readonly #url: string;
  readonly #kind: (typeof KINDS)[StoreKind];
  readonly #key = randomBytes(32);
  anchor: readonly ChainPlace[] = [];

  constructor(kind: StoreKind, url: string) {
    this.#kind = KINDS[kind];
    this.#url = url;
  }

  async use<T>(what: (store: Store) => Promise<T>): Promise<T> {
    const options = { url: this.#url, clock, lockout: LOCKOUT, lease: LEASE, chainKey: this.#key };
    const store = await this.#kind.open({ ...options, warn: () => {} });
    try {
      return await what(store);
    } finally {
      await store.close();
    }
  }

  read(): Promise<Ledger> {
    return this.#kind.ledger.read(this.#url);
  }

  write(ledger: Ledger): Promise<void> {
    return this.#kind.ledger.write(this.#url, ledger);
  }

  /** Writes chains of random lengths, some of them cut; answers how it was before the last. */
  async fill(next: Next): Promise<Ledger> {
    let earlier: Ledger = { rows: [], notes: [] };
    const chains = 2 + next(3);
    for (let chain = 0; chain < chains; chain++) {
      await this.use(async (store) => {
        if (chain === chains - 1) earlier = await this.read();
        for (let i = 3 + next(12); i > 0; i--)
          await store.audit.record(entryWith({ time: 1_000 * (chain + 1) + i, requestId: `r${i}` }));
        await store.usage.flush();
        if (next(3) === 0)
          await new Retention(store.audit, store.chainLog, clock).deleteBefore(2_000, 1 + next(5));
      });
    }
    this.anchor = (await this.verify()).heads;
    return earlier;
  }

  verify() {
    const anchored = async () => this.anchor;
    return this.use(({ chainLog: log, chain }) =>
      new AuditVerifier({ log, chain, clock, anchored }).verify(),
    );
  }
}

onEachStore('random tamperings of random stores, with a chain key and an anchor, on %s', (kind) => {
  const seeds = Array.from({ length: STORES[kind] }, (_, i) => SEED + i);
  it.each(seeds)('are all found, seed %i', async (seed) => {
    const database = freshDatabase(kind, inject('mongoUri'));
    onTestFinished(() => database.drop());
    const next = numbersFrom(seed);
    const store = new RandomStore(kind, database.url);
    const earlier = await store.fill(next);
    const whole = await store.read();
    expect((await store.verify()).defect).toBeUndefined();
    for (let done = 0; done < TAMPERINGS; ) {
      const ledger = copyOf(whole);
      const change = next(CHANGES.length);
      try {
        CHANGES[change]?.(ledger, next, earlier);
      } catch {
        continue;
      }
      await store.write(ledger);
      expect((await store.verify()).defect, `tampering ${done}, change ${change}`).toBeDefined();
      done++;
    }
  });
});

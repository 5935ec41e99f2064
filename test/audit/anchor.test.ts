// If this fails, a store that was put back to an earlier copy goes unnoticed, or an anchor that cannot be written stops calls.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Anchor } from '../../src/audit/anchor.ts';
import { Chain } from '../../src/audit/chain.ts';
import type { AuditRecord, ChainHead, ChainPlace } from '../../src/keys/ports/audit.ts';
import { TestClock } from '../support/clock.ts';

/** What was done to files, in order; the file system itself is the real one. */
const done = vi.hoisted((): string[] => []);
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  return {
    ...real,
    open: async (...args: Parameters<typeof real.open>) => {
      const handle = await real.open(...args);
      const sync = handle.sync.bind(handle);
      handle.sync = async () => {
        done.push(`sync ${basename(String(args[0])).replace(String(process.pid), 'PID')}`);
        await sync();
      };
      return handle;
    },
    rename: async (from: string, to: string) => {
      done.push(`rename to ${basename(to)}`);
      await real.rename(from, to);
    },
  };
});

const KEY = Buffer.alloc(32, 7);
const place = (processId: string, sequence: number): ChainPlace => ({
  processId,
  sequence,
  hash: `${sequence}`.padStart(64, 'a'),
});

/** A process whose chain, and the notes of all chains, are what the test says. */
class Process {
  own: ChainPlace | undefined;
  notes: ChainHead[] = [];
  rows: ChainPlace[] = [];
  events: Pick<AuditRecord, 'outcome' | 'reason'>[] = [];
  looks = 0;
  storeAway = false;
  readonly clock = new TestClock();
  readonly warned: string[] = [];
  readonly causes: unknown[] = [];
  readonly written: boolean[] = [];
  readonly chain: Chain;
  readonly anchor: Anchor;
  #told = () => {};

  constructor(file: string, key: Uint8Array = KEY) {
    this.chain = new Chain(key);
    const chains = {
      ownHead: async () => {
        this.looks++;
        return this.own;
      },
      heads: async () => {
        if (this.storeAway) throw new Error('the store is away');
        return this.notes;
      },
      hashesAt: async (processId: string, sequences: readonly number[]) =>
        new Map(
          this.rows
            .filter((row) => row.processId === processId && sequences.includes(row.sequence))
            .map(({ sequence, hash }) => [sequence, hash]),
        ),
    };
    this.anchor = new Anchor({
      file,
      log: { list: async () => ({ items: this.events, next: undefined }) as never },
      chains: chains as never,
      chain: this.chain,
      clock: this.clock,
      warn: (text, error) => {
        this.warned.push(text);
        this.causes.push(error);
      },
      written: (ok) => {
        this.written.push(ok);
        this.#told();
      },
    });
  }

  note(at: ChainPlace, more: Partial<ChainHead> = {}): ChainHead {
    const head = { ...at, closed: true, ...more };
    return { ...head, mac: this.chain.noteMac(head) };
  }

  nextWrite(): Promise<void> {
    return new Promise((resolve) => {
      this.#told = resolve;
    });
  }
}

let folder: string;
let file: string;
let one: Process;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'apikeyd-anchor-'));
  file = join(folder, 'anchor');
  one = new Process(file);
  done.length = 0;
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true });
});

describe('the anchor file', () => {
  it('is on the disk before it takes the place of the one before, and its name after that', async () => {
    one.own = place('p', 1);
    await one.anchor.write();
    expect(done).toEqual(['sync anchor.PID.new', 'rename to anchor', `sync ${basename(folder)}`]);
    expect(readdirSync(folder)).toEqual(['anchor']);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await one.anchor.read()).toEqual([place('p', 1)]);
  });

  it('is written only when something is new', async () => {
    one.own = place('p', 1);
    await one.anchor.write();
    await one.anchor.write();
    expect(one.written).toEqual([true]);
    one.own = place('p', 2);
    await one.anchor.write();
    expect(one.written).toEqual([true, true]);
    expect(await one.anchor.read()).toEqual([place('p', 2)]);
  });

  it('is looked after each second, and a last time at the end', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    one.own = place('p', 1);
    one.anchor.start();
    vi.advanceTimersByTime(999);
    await one.anchor.read();
    expect(one.looks).toBe(0);
    const written = one.nextWrite();
    vi.advanceTimersByTime(1);
    await one.anchor.read();
    expect(one.looks).toBe(1);
    await written;
    expect(await one.anchor.read()).toEqual([place('p', 1)]);
    one.own = place('p', 2);
    await one.anchor.stop();
    expect(await one.anchor.read()).toEqual([place('p', 2)]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('holds the ends of other processes after a minute, and none that nobody with the key has noted', async () => {
    one.own = place('p', 1);
    await one.anchor.write();
    one.notes = [one.note(place('q', 5)), { ...place('forged', 9), closed: true, mac: 'f'.repeat(64) }];
    one.clock.advance(59_999);
    await one.anchor.write();
    expect(await one.anchor.read()).toEqual([place('p', 1)]);
    one.clock.advance(1);
    await one.anchor.write();
    expect(await one.anchor.read()).toEqual([place('p', 1), place('q', 5)]);
  });

  it('that two processes share keeps what each has seen, and never goes back', async () => {
    const other = new Process(file);
    one.own = place('p', 5);
    await one.anchor.write();
    other.own = place('q', 3);
    other.notes = [other.note(place('p', 2))];
    await other.anchor.write();
    const both = await one.anchor.read();
    expect(both?.toSorted((a, b) => a.processId.localeCompare(b.processId))).toEqual([
      place('p', 5),
      place('q', 3),
    ]);
  });

  it('holds 1000 chains at most', async () => {
    one.own = place('p', 1);
    one.notes = Array.from({ length: 1_500 }, (_, i) => one.note(place(`q${i}`, 1)));
    await one.anchor.write();
    const held = await one.anchor.read();
    expect(held).toHaveLength(1_000);
    expect(held?.at(-1)).toEqual(place('q1499', 1));
  });

  it('that cannot be written is told once and counted each time, and is written when it can be', async () => {
    one = new Process(join(folder, 'later', 'anchor'));
    one.own = place('p', 1);
    await one.anchor.write();
    await one.anchor.write();
    expect(one.warned).toEqual(['AUDIT_ANCHOR_FILE cannot be written, trying again']);
    expect(one.written).toEqual([false, false]);
    mkdirSync(join(folder, 'later'));
    await one.anchor.write();
    expect(one.written).toEqual([false, false, true]);
    expect(await one.anchor.read()).toEqual([place('p', 1)]);
    rmSync(join(folder, 'later'), { recursive: true });
    one.own = place('p', 2);
    await one.anchor.stop();
    expect(one.warned).toHaveLength(2);
  });
});

describe('a file whose trouble is not that of writing', () => {
  it('is written while the store is away, which is told once as such and counts as no failure', async () => {
    one.own = place('p', 1);
    one.storeAway = true;
    await one.anchor.write();
    one.clock.advance(60_000);
    await one.anchor.write();
    expect(one.warned).toEqual([
      "the store does not say where the audit's chains end: AUDIT_ANCHOR_FILE lacks that",
    ]);
    expect(one.causes).toEqual([new Error('the store is away')]);
    expect(one.written).toEqual([true]);
    expect(await one.anchor.read()).toEqual([place('p', 1)]);
    one.storeAway = false;
    one.notes = [one.note(place('q', 5))];
    one.clock.advance(60_000);
    await one.anchor.write();
    expect(await one.anchor.read()).toEqual([place('p', 1), place('q', 5)]);
    one.storeAway = true;
    one.clock.advance(60_000);
    await one.anchor.write();
    expect(one.warned).toHaveLength(2);
  });

  it('that cannot be read is not written over, and told as such', async () => {
    mkdirSync(file);
    one.own = place('p', 1);
    await one.anchor.write();
    expect(one.warned).toEqual(['AUDIT_ANCHOR_FILE cannot be read, trying again']);
    expect(one.causes).toEqual([expect.objectContaining({ code: 'EISDIR' })]);
    expect(one.written).toEqual([false]);
    rmSync(file, { recursive: true });
    await one.anchor.write();
    expect(await one.anchor.read()).toEqual([place('p', 1)]);
  });
});

describe('what an anchor file is taken for', () => {
  it('nothing where there is no file', async () => {
    expect(await one.anchor.read()).toEqual([]);
    expect(await one.anchor.firstLacking()).toBeUndefined();
  });

  it.each<[string, (text: string) => string]>([
    ['a place was changed', (text) => text.replace('"sequence":4', '"sequence":3')],
    ['places were taken out', (text) => text.replace(/\[.*\]/, '[]')],
    ['its proof was taken out', (text) => text.replace(/,"mac".*/, '}')],
    ['it ends early', (text) => text.slice(0, 40)],
    ['it is empty', () => ''],
    ['it holds something else', () => '{"heads":[null,7],"mac":""}'],
  ])('unreadable where %s', async (_, change) => {
    one.own = place('p', 4);
    await one.anchor.write();
    writeFileSync(file, change(readFileSync(file, 'utf8')));
    const next = new Process(file);
    next.notes = [next.note(place('p', 4))];
    expect(await next.anchor.read()).toBeUndefined();
    expect(await next.anchor.firstLacking()).toBe('UNREADABLE');
  });

  it('unreadable where it was written with another key', async () => {
    one.own = place('p', 4);
    await one.anchor.write();
    expect(await new Process(file, Buffer.alloc(32, 8)).anchor.firstLacking()).toBe('UNREADABLE');
  });

  it('unreadable where it cannot be read', async () => {
    expect(await new Process(dirname(file)).anchor.read()).toBeUndefined();
  });
});

describe('a start', () => {
  let next: Process;
  beforeEach(async () => {
    one.own = place('p', 5);
    await one.anchor.write();
    next = new Process(file);
  });

  it.each<[string, (next: Process) => void]>([
    ['ends there', (it) => it.notes.push(it.note(place('p', 5)))],
    ['ends later', (it) => it.notes.push(it.note(place('p', 6)))],
    [
      'was noted before a kill',
      (it) => {
        it.notes.push(it.note(place('p', 3)));
        it.rows.push(place('p', 5));
      },
    ],
    [
      'was cut by retention beyond it, its note behind',
      (it) => it.notes.push(it.note(place('p', 3), { cut: { ...place('p', 6), time: 1, mac: '' } })),
    ],
  ])('is let be where the chain %s', async (_, set) => {
    set(next);
    expect(await next.anchor.firstLacking()).toBeUndefined();
  });

  it.each<[string, (next: Process) => void]>([
    ['is gone', () => {}],
    ['ends before', (it) => it.notes.push(it.note(place('p', 4)))],
    ['has another event there', (it) => it.notes.push(it.note({ ...place('p', 5), hash: 'f'.repeat(64) }))],
    [
      'has another row there, behind its note',
      (it) => {
        it.notes.push(it.note(place('p', 3)));
        it.rows.push({ ...place('p', 5), hash: 'f'.repeat(64) });
      },
    ],
    ['has lost its note, and not its rows', (it) => it.rows.push(place('p', 5))],
    [
      'was cut before that',
      (it) => it.notes.push(it.note(place('p', 4), { cut: { ...place('p', 4), time: 1, mac: '' } })),
    ],
  ])('is told of the place where the chain %s', async (_, set) => {
    set(next);
    expect(await next.anchor.firstLacking()).toEqual(place('p', 5));
  });

  it.each<[string, boolean]>([
    ['lost p 5 5', true],
    ['lost q 1 9, p 1 9', true],
    ['lost p 1 4', false],
    ['lost p 6 9', false],
    ['lost q 1 9', false],
    ['lost p 9 1', false],
    ['nothing of that kind', false],
  ])('after a restore that says "%s": excused %s', async (reason, excused) => {
    next.events = [{ outcome: 'RESTORED', reason }];
    expect(await next.anchor.firstLacking()).toEqual(excused ? undefined : place('p', 5));
  });

  it('keeps in the file what it found there', async () => {
    next.notes = [next.note(place('p', 5))];
    await next.anchor.firstLacking();
    rmSync(file);
    next.own = place('r', 1);
    next.notes = [];
    await next.anchor.write();
    expect(await next.anchor.read()).toEqual([place('p', 5), place('r', 1)]);
  });
});

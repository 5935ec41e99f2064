// If this fails, nobody learns that a key is about to expire, its rotation is due, or a grace period has ended.
import { describe, expect, it } from 'vitest';
import type { Key } from '../../src/keys/key.ts';
import type { DueTime, KeyStore } from '../../src/keys/ports/key-store.ts';
import { rotationDueTime } from '../../src/keys/rotation.ts';
import { pagedBy } from '../../src/store/paging.ts';
import { DueKeys } from '../../src/watch/due-keys.ts';
import { TestClock } from '../support/clock.ts';
import { keyWith } from '../support/keys.ts';

const DAY_MS = 86_400_000;
const { key: sample } = keyWith({ createTime: 0 });

const TIMES: Readonly<Record<DueTime, (key: Key) => number | undefined>> = {
  ROTATION_GRACE: ({ rotation }) => rotation?.expireTime,
  ROTATION: rotationDueTime,
  EXPIRY: ({ expireTime }) => expireTime,
};

/** Many keys, and the calls of the sweeps. */
class Scene {
  readonly clock = new TestClock();
  readonly raised: string[] = [];
  readonly ended: string[] = [];
  asked = 0;
  read = 0;
  readonly dueKeys: DueKeys;
  readonly #keys: Readonly<Record<DueTime, readonly Key[]>>;

  /** @param make the keys, given the time */
  constructor(make: (now: number) => Key[]) {
    const keys = make(this.clock.now());
    const sorted = (kind: DueTime) => {
      const time = (key: Key) => Number(TIMES[kind](key));
      const some = keys.filter((key) => TIMES[kind](key) !== undefined);
      return some.sort((a, b) => time(a) - time(b) || (a.id < b.id ? -1 : 1));
    };
    this.#keys = {
      ROTATION_GRACE: sorted('ROTATION_GRACE'),
      ROTATION: sorted('ROTATION'),
      EXPIRY: sorted('EXPIRY'),
    };
    const [known, noted] = [new Set<string>(), new Set<string>()];
    this.dueKeys = new DueKeys({
      keys: { due: (...args) => this.#due(...args) },
      rotations: {
        noteGraceEnded: async (id) => {
          this.asked++;
          if (noted.has(id)) return false;
          noted.add(id);
          return true;
        },
      },
      alerts: {
        raise: ({ id, type, keyId }) => {
          if (known.has(id)) return false;
          known.add(id);
          this.raised.push(`${type} ${keyId}`);
          return true;
        },
      },
      complete: async () => {},
      graceEnded: ({ rotation }) => void this.ended.push(rotation?.id ?? ''),
      clock: this.clock,
      autoCleanup: false,
    });
  }

  /** As stores do it: by time and id, from after the last. */
  readonly #due: KeyStore['due'] = async (kind, until, { size, after }) => {
    const keys = this.#keys[kind];
    const timeOf = (key: Key) => Number(TIMES[kind](key));
    const [time = Number.NEGATIVE_INFINITY, id = ''] = after ?? [];
    let [low, high] = [0, keys.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const key = keys[middle] as Key;
      const isAfter = timeOf(key) > Number(time) || (timeOf(key) === time && key.id > String(id));
      if (isAfter) high = middle;
      else low = middle + 1;
    }
    const rows = keys.slice(low, low + size + 1).filter((key) => timeOf(key) <= until);
    this.read += rows.length;
    return pagedBy(rows, size, (last) => [timeOf(last), last.id]);
  };

  async sweeps(times: number): Promise<void> {
    for (let i = 0; i < times; i++) await this.dueKeys.sweep();
  }
}

const many = (count: number, keyOf: (i: number) => Partial<Key>): Key[] =>
  Array.from({ length: count }, (_, i) => ({
    ...sample,
    id: `key-${String(i).padStart(6, '0')}`,
    ...keyOf(i),
  }));

describe('notices before keys expire', () => {
  it('are sent despite 150 000 keys that expired long ago, which are not read at every sweep', async () => {
    const scene = new Scene((now) => [
      ...many(150_000, (i) => ({ expireTime: now - DAY_MS - 150_000 + i })),
      { ...sample, id: 'next', expireTime: now + DAY_MS / 2 },
      { ...sample, id: 'later', expireTime: now + 30 * DAY_MS },
    ]);
    await scene.sweeps(2);
    expect(scene.raised).toEqual(['KEY_EXPIRING next']);
    scene.read = 0;
    await scene.sweeps(1);
    expect(scene.read).toBeLessThan(2_000);
    scene.clock.advance(24 * DAY_MS);
    await scene.sweeps(1);
    expect(scene.raised.at(-1)).toBe('KEY_EXPIRING later');
  });

  it('are sent once for each of 150 000 keys that expire at one time, over several sweeps', async () => {
    const scene = new Scene((now) => many(150_000, () => ({ expireTime: now + DAY_MS / 2 })));
    await scene.sweeps(1);
    expect(scene.raised.length).toBeGreaterThan(2_000);
    expect(scene.raised.length).toBeLessThan(3_500);
    await scene.sweeps(60);
    expect(scene.raised).toHaveLength(150_000);
    expect(scene.raised.at(-1)).toBe('KEY_EXPIRING key-149999');
  });
});

describe('rotations', () => {
  it('are announced once each despite 150 000 secrets that nobody rotates', async () => {
    const secrets = sample.secrets.map((secret) => ({ ...secret, createTime: 0 }));
    const scene = new Scene(() => many(150_000, (i) => ({ secrets, rotateEveryMs: 1 + (i % 3) })));
    await scene.sweeps(61);
    expect(scene.raised).toHaveLength(150_000);
    expect(new Set(scene.raised).size).toBe(150_000);
  });

  it('are noted once each despite 150 000 that nobody completes', async () => {
    const scene = new Scene((now) =>
      many(150_000, (i) => ({
        rotation: { id: `r${i}`, mode: 'MANUAL', startTime: 0, expireTime: now - 300_000 + (i % 7) },
      })),
    );
    await scene.sweeps(1);
    expect(scene.ended.length).toBeLessThan(101_000);
    await scene.sweeps(1);
    expect(scene.ended).toHaveLength(150_000);
    // Two looks a round; nothing is asked of the store again, also after the clock was set back and is right again.
    await scene.sweeps(3);
    expect(scene.asked).toBe(150_000);
    scene.clock.step(-3_600_000);
    await scene.sweeps(2);
    scene.clock.step(3_600_000);
    await scene.sweeps(2);
    expect(scene.asked).toBe(300_000);
  });

  it('are looked for again while another process may still note an earlier end', async () => {
    const scene = new Scene((now) =>
      many(1, () => ({ rotation: { id: 'r', mode: 'MANUAL', startTime: 0, expireTime: now } })),
    );
    await scene.sweeps(2);
    scene.clock.advance(120_000);
    await scene.sweeps(2);
    expect(scene.asked).toBe(3);
    expect(scene.ended).toEqual(['r']);
  });
});

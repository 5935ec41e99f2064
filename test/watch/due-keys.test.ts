// If this fails, nobody is told that a key is about to expire.
import { describe, expect, it } from 'vitest';
import type { Key } from '../../src/keys/key.ts';
import { pagedBy } from '../../src/store/paging.ts';
import { DueKeys } from '../../src/watch/due-keys.ts';
import { TestClock } from '../support/clock.ts';
import { keyWith } from '../support/keys.ts';

const DAY_MS = 86_400_000;

describe('notices before keys expire', () => {
  it('150 000 keys that expired long ago do not hide the next one, and are not read at every sweep', async () => {
    const clock = new TestClock();
    const { key: sample } = keyWith({ createTime: 0 });
    const keys: Key[] = Array.from({ length: 150_000 }, (_, i) => ({
      ...sample,
      id: `dead${String(i).padStart(6, '0')}`,
      expireTime: clock.now() - DAY_MS - 150_000 + i,
    }));
    keys.push({ ...sample, id: 'next', expireTime: clock.now() + DAY_MS / 2 });
    keys.push({ ...sample, id: 'later', expireTime: clock.now() + 30 * DAY_MS });
    let read = 0;
    const raised: string[] = [];
    const dueKeys = new DueKeys({
      keys: {
        async due(kind, until, { size, after }) {
          if (kind !== 'EXPIRY') return { items: [], next: undefined };
          // As stores do it: by time and id, from after the last.
          const [time = Number.NEGATIVE_INFINITY, id = ''] = after ?? [];
          const from = keys.findIndex(
            (key) => Number(key.expireTime) > Number(time) || (key.expireTime === time && key.id > id),
          );
          const rows = (from < 0 ? [] : keys.slice(from, from + size + 1)).filter(
            ({ expireTime = 0 }) => expireTime <= until,
          );
          read += rows.length;
          return pagedBy(rows, size, (last) => [Number(last.expireTime), last.id]);
        },
      },
      rotations: { noteGraceEnded: async () => false },
      alerts: { raise: ({ type, keyId }) => void raised.push(`${type} ${keyId}`) },
      complete: async () => {},
      graceEnded: () => {},
      clock,
      autoCleanup: false,
    });
    await dueKeys.sweep();
    await dueKeys.sweep();
    expect(raised).toEqual(['KEY_EXPIRING next']);
    read = 0;
    await dueKeys.sweep();
    expect(read).toBeLessThan(2_000);
    clock.advance(24 * DAY_MS);
    await dueKeys.sweep();
    expect(raised.at(-1)).toBe('KEY_EXPIRING later');
  });
});

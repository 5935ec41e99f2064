// If this fails, a call fails for a write that the server has undone and asked to have again.
import { MongoServerError } from 'mongodb';
import { describe, expect, it } from 'vitest';
import { guarded, inTime } from '../../src/store/mongo/errors.ts';

const deadlock = () => new MongoServerError({ message: 'deadlock detected', code: 1 });

describe('a write that the server has undone', () => {
  it('is sent again', async () => {
    let sent = 0;
    const write = async () => {
      sent++;
      if (sent < 3) throw deadlock();
      return 'written';
    };
    expect(await inTime(write)).toBe('written');
    expect(sent).toBe(3);
  });

  it('is given up in the end, as a store that is away', async () => {
    let sent = 0;
    const write = () => {
      sent++;
      return Promise.reject(deadlock());
    };
    await expect(guarded(write)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(sent).toBe(8);
  });

  it('is not sent again when its outcome is unknown', async () => {
    let sent = 0;
    const write = () => {
      sent++;
      return Promise.reject(new MongoServerError({ message: 'internal', code: 1 }));
    };
    await expect(guarded(write)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(sent).toBe(1);
  });
});

// If this fails, a subscriber that does not read fills the server's memory, or one that reads misses messages.
import { describe, expect, it } from 'vitest';
import { ApiError } from '../../src/keys/errors.ts';
import { MAX_OF_ONE, Subscribers } from '../../src/watch/subscription.ts';

const WHO = { keyId: 'a', network: '10.0.0.1' };

describe('subscribers', () => {
  it('each get every message in order', async () => {
    const all = new Subscribers<number>();
    const [first, second] = [all.add(WHO), all.add(WHO)];
    for (let i = 0; i < 5; i++) all.push(i);
    first.end();
    const seen: number[] = [];
    for await (const n of second) {
      seen.push(n);
      if (n < 4) continue;
      all.push(5);
      if (n === 5) break;
    }
    expect(seen).toEqual([0, 1, 2, 3, 4, 5]);
    expect(all.size).toBe(0);
  });

  it('that do not read are dropped instead of buffered without bound, and the others continue', async () => {
    const all = new Subscribers<number>();
    const slow = all.add(WHO);
    const quick = all.add(WHO);
    const reader = quick[Symbol.asyncIterator]();
    for (let i = 0; i <= 1_000; i++) {
      all.push(i);
      expect((await reader.next()).value).toBe(i);
    }
    expect(all.size).toBe(1);
    const read = async () => {
      for await (const _ of slow) throw new Error('a dropped subscriber was given a message');
    };
    await expect(read()).rejects.toMatchObject({ code: 'SUBSCRIBER_TOO_SLOW' });
  });

  it('are bounded in number, and all end when the server stops', async () => {
    const all = new Subscribers<number>();
    const some = Array.from({ length: 1_000 }, (_, i) => all.add({ keyId: `k${i}`, network: `n${i}` }));
    expect(() => all.add(WHO)).toThrow(ApiError);
    const ended = some.map(async (one) => {
      for await (const _ of one);
    });
    all.close();
    const outcomes = await Promise.allSettled(ended);
    expect(new Set(outcomes.map((o) => o.status === 'rejected' && (o.reason as ApiError).code))).toEqual(
      new Set(['SERVER_STOPPING']),
    );
    expect(() => all.add(WHO)).toThrow('stopping');
  });

  it('of one key, or of one address, leave room for others', () => {
    const all = new Subscribers<number>();
    for (let i = 0; i < MAX_OF_ONE; i++) all.add({ keyId: 'greedy', network: `10.0.1.${i}` });
    expect(() => all.add({ keyId: 'greedy', network: '10.9.9.9' })).toThrow('this calling key');
    for (let i = 0; i < MAX_OF_ONE - 1; i++) all.add({ keyId: `k${i}`, network: '2001:db8::/64' });
    const last = all.add({ keyId: 'x', network: '2001:db8::/64' });
    expect(() => all.add({ keyId: 'y', network: '2001:db8::/64' })).toThrow('this address');
    last.end();
    all.add({ keyId: 'y', network: '2001:db8::/64' });
  });
});

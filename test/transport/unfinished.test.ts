// If this fails, whoever begins calls and does not finish them locks all others out, or fills the memory.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { ApiError } from '../../src/keys/errors.ts';
import { LIMITS } from '../../src/rpc/limits.ts';
import { GatheredBytes } from '../../src/transport/gathered-bytes.ts';
import { OpenCalls } from '../../src/transport/open-calls.ts';
import { UnfinishedMessages } from '../../src/transport/unfinished.ts';
import { Unpacking } from '../../src/transport/unpacking.ts';

const MIB = 1 << 20;
const { connection: ofConnection, network: ofNetwork, all: ofAll } = LIMITS.unfinishedBytes;

describe('messages that have not arrived whole', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }));
  afterEach(() => void vi.useRealTimers());

  const begin = (messages: UnfinishedMessages, peerIp: string, connection: object = {}) => {
    const refused: ApiError[] = [];
    const message = messages.begin({ connection, peerIp }, 0, (error) => refused.push(error));
    return { message, refused, grow: (bytes: number) => message.grow(bytes) };
  };
  const address = (i: number) => `192.0.2.${i}`;

  it('are refused beyond the share of their connection, and those of others stay', () => {
    const messages = new UnfinishedMessages();
    const connection = {};
    const other = begin(messages, address(1));
    const many = Array.from({ length: ofConnection / MIB + 1 }, () =>
      begin(messages, address(1), connection),
    );
    for (const { grow } of many) grow(MIB);
    expect(many.filter(({ refused }) => refused.length > 0).length).toBeGreaterThan(0);
    expect(other.refused).toEqual([]);
    expect(messages.bytes).toBeLessThanOrEqual(ofConnection + 2 * LIMITS.unfinishedOverheadBytes);
  });

  it.each([
    ['an address', address],
    ['a /64 of IPv6', (i: number) => `2001:db8::${i + 1}`],
  ])('of %s have a share together, however many connections', (_what, ip) => {
    const messages = new UnfinishedMessages();
    const one = ip(0);
    for (let i = 0; i < 100; i++) begin(messages, one.includes(':') ? ip(i) : one).grow(MIB);
    expect(messages.bytes).toBeLessThanOrEqual(ofNetwork);
    const other = begin(messages, '198.51.100.1');
    other.grow(MIB);
    expect(other.refused).toEqual([]);
  });

  it('are refused newest first when all together hold too much', () => {
    const messages = new UnfinishedMessages();
    const first = begin(messages, address(0));
    first.grow(1_000);
    const many = Array.from({ length: 2 * (ofAll / MIB) }, (_, i) => begin(messages, address(1 + (i % 200))));
    for (const { grow } of many) grow(MIB);
    expect(messages.bytes).toBeLessThanOrEqual(ofAll);
    first.grow(10_000);
    expect(first.refused).toEqual([]);
    expect(many.at(-1)?.refused.map(({ code }) => code)).toEqual(['SERVER_OVERLOADED']);
  });

  it('hold nothing any more when they have ended, in whatever order', () => {
    const messages = new UnfinishedMessages();
    const many = Array.from({ length: 9 }, (_, i) => begin(messages, address(i)));
    for (const { grow } of many) grow(100);
    for (const i of [4, 0, 8, 7, 1, 2, 6, 3, 5, 5]) many[i]?.message.end();
    expect([messages.count, messages.bytes, vi.getTimerCount()]).toEqual([0, 0, 0]);
    const last = begin(messages, address(1));
    last.grow(100);
    expect(messages.bytes).toBe(LIMITS.unfinishedOverheadBytes + 100);
  });

  it('end when they take too long, or come byte by byte', () => {
    const messages = new UnfinishedMessages();
    const slow = begin(messages, address(1));
    const fast = begin(messages, address(2));
    const seconds = (count: number) => {
      for (let i = 0; i < count; i++) {
        slow.grow(1);
        fast.grow(LIMITS.messageBytesPerSecond);
        vi.advanceTimersByTime(1_000);
      }
    };
    seconds(LIMITS.messageGraceMs / 1_000);
    expect(slow.refused).toEqual([]);
    seconds(1);
    expect(slow.refused.map(({ code }) => code)).toEqual(['REQUEST_NOT_RECEIVED']);
    expect(fast.refused).toEqual([]);
    seconds(LIMITS.messageMs / 1_000);
    expect(fast.refused.map(({ code }) => code)).toEqual(['REQUEST_NOT_RECEIVED']);
    expect(messages.count).toBe(0);
  });
});

describe('bytes that are kept', () => {
  it('do not keep what lay around them in the socket’s piece', () => {
    const piece = Buffer.alloc(65_536, 'x');
    const gathered = new GatheredBytes();
    for (let i = 0; i < 10; i++) gathered.add(piece.subarray(i, i + 1), MIB);
    expect(gathered.bytes.toString()).toBe('x'.repeat(10));
    expect(gathered.bytes.buffer.byteLength).toBeLessThan(1_024);
  });

  it('take no more room than twice of what has come, whatever a head claims', () => {
    const gathered = new GatheredBytes();
    gathered.add(Buffer.alloc(5), MIB);
    expect(gathered.bytes.buffer.byteLength).toBeLessThan(1_024);
    gathered.add(Buffer.alloc(100_000), MIB);
    expect(gathered.bytes.buffer.byteLength).toBeLessThan(200_001);
  });
});

describe('unpacking', () => {
  it('is done for few messages at a time, and not for those whose clients have gone', async () => {
    const unpacking = new Unpacking();
    const leave = await Promise.all(Array.from({ length: LIMITS.unpackedAtOnce }, () => unpacking.turn()));
    let asked = 0;
    const waits = unpacking.gunzip(Buffer.from('no gzip at all'), () => {
      asked++;
      return false;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(asked).toBe(0);
    leave[0]?.();
    leave[0]?.();
    await expect(waits).rejects.toMatchObject({ code: 'REQUEST_NOT_RECEIVED' });
    expect(asked).toBe(1);
  });
});

describe('calls of health and reflection', () => {
  it('of one address do not keep other addresses from theirs', () => {
    const calls = new OpenCalls();
    const ends = Array.from({ length: LIMITS.openCalls.network }, () => calls.begin('192.0.2.1'));
    expect(() => calls.begin('192.0.2.1')).toThrow(/too many/);
    calls.begin('192.0.2.2')();
    ends[0]?.();
    calls.begin('192.0.2.1')();
  });
});

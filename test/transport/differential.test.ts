// If this fails, our HTTP/2 answers what Node's (nghttp2) refuses, or refuses what Node's answers.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FLAG, FRAME } from '../../src/transport/http2/frames.ts';
import { encodeHeaders, HpackDecoder } from '../../src/transport/http2/hpack.ts';
import { frame, uint32 } from '../attacks/attack.ts';
import { Pair, type Told } from './differential.ts';

const { END_STREAM, END_HEADERS } = FLAG;

const block = (path: string, more: readonly (readonly [string, string])[] = []) =>
  encodeHeaders([[':method', 'POST'], [':scheme', 'http'], [':path', path], [':authority', 'a'], ...more]);
const BLOCKS = [
  block('/a'),
  block('/b', [['x', 'y']]),
  block('/', [['content-length', '5']]),
  // Without a path; with a header of the connection; names that are not lower-case.
  encodeHeaders([
    [':method', 'GET'],
    [':scheme', 'http'],
  ]),
  block('/c', [['connection', 'close']]),
  block('/d', [['Upper', 'case']]),
  Buffer.concat([block('/e'), Buffer.from([0x40, 1, 0x78, 1, 0x31])]),
  Buffer.concat([block('/f'), Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff])]),
];

const id = fc.constantFrom(1, 3, 5, 7);
const flags = fc.constantFrom(0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS);
const bytes = fc.constantFrom(0, 1, 5, 100).map((length) => Buffer.alloc(length, 'x'));
const anyFrame = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(id, fc.constantFrom(END_HEADERS, END_HEADERS | END_STREAM), fc.constantFrom(...BLOCKS))
      .map(([i, f, b]) => frame(FRAME.HEADERS, f, i, b)),
  },
  {
    weight: 6,
    arbitrary: fc
      .tuple(id, fc.constantFrom(0, END_STREAM), bytes)
      .map(([i, f, b]) => frame(FRAME.DATA, f, i, b)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(id, flags, fc.constantFrom(...BLOCKS))
      .map(([i, f, b]) => frame(FRAME.CONTINUATION, f, i, b)),
  },
  { weight: 1, arbitrary: id.map((i) => frame(FRAME.RST_STREAM, 0, i, uint32(8))) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(0, 1, 3, 5), fc.constantFrom(0, 1, 1000, 2 ** 31 - 1))
      .map(([i, n]) => frame(FRAME.WINDOW_UPDATE, 0, i, uint32(n))),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(0, 4, 8, 9).map((length) => frame(FRAME.PING, 0, 0, Buffer.alloc(length))),
  },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(0, 1, 6, 12)
      .map((length) => frame(FRAME.SETTINGS, 0, 0, Buffer.alloc(length))),
  },
  { weight: 1, arbitrary: fc.nat(255).map((type) => frame(16 + (type % 200), 0, 0, Buffer.alloc(3))) },
);
/** Streams in order, so that most sequences are legal for a while. */
const legal = fc
  .array(fc.tuple(fc.constantFrom(...BLOCKS.slice(0, 3)), bytes, fc.boolean()), { maxLength: 4 })
  .map((requests) =>
    requests.flatMap(([headers, body, whole], i) => [
      frame(FRAME.HEADERS, END_HEADERS, 2 * i + 1, headers),
      frame(FRAME.DATA, whole ? END_STREAM : 0, 2 * i + 1, body),
    ]),
  );
const damage = fc.array(fc.tuple(fc.nat(), fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 });
/** Anything but lengths. */
const damaged = fc.tuple(legal, damage).map(([frames, changes]) => {
  const copies = frames.map((whole) => Buffer.from(whole));
  for (const [which, at, value] of changes) {
    const copy = copies[which % copies.length];
    if (copy !== undefined) copy[3 + (at % (copy.length - 3))] = value;
  }
  return copies;
});
/** Lengths, too: a frame may swallow what follows, so more zeros follow than any frame takes. They end a connection. */
const lying = fc.tuple(legal, damage).map(([frames, changes]) => {
  const whole = Buffer.concat(frames);
  for (const [, at, value] of changes) if (whole.length > 0) whole[at % whole.length] = value;
  return [whole, Buffer.alloc(20_000)];
});
const sequence = fc.oneof(legal, damaged, lying, fc.array(anyFrame, { maxLength: 8 }));
const cuts = fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 6 });

interface Case {
  readonly frames: readonly Buffer[];
  readonly own: Told;
  readonly node: Told;
}

const isReset = ({ streams }: Told) => Object.values(streams).some((told) => /^reset [135]$/.test(told));
/** Differences of whole connections that are none; docs/design/http2.md says why of each. */
const OF_CONNECTIONS: readonly ((at: Case) => boolean)[] = [
  // Both end it: with which code, and what was answered before, is each one's own.
  ({ own, node }) => own.end !== 'open' && node.end !== 'open',
  // nghttp2 ends it where this side resets the stream.
  ({ own, node }) => own.end === 'open' && /^GOAWAY [25]$/.test(node.end) && isReset(own),
  // nghttp2 drops frames of streams that are over, and PRIORITY, without a look at them.
  ({ own, node, frames }) =>
    node.end === 'open' && (own.end === 'GOAWAY 5' || (own.end !== 'closed' && hasDropped(frames))),
];

function hasDropped(frames: readonly Buffer[]): boolean {
  const open = new Set<number>();
  let last = 0;
  return frames.some((whole) => {
    const [type, flags, id] = [whole[3], whole[4] ?? 0, whole.readUInt32BE(5) & 0x7fff_ffff];
    const isOver = id > 0 && id <= last && !open.has(id);
    if (type === FRAME.HEADERS && id > last) open.add(id);
    if (type === FRAME.HEADERS) last = Math.max(last, id);
    if (type === FRAME.RST_STREAM || (flags & END_STREAM) !== 0) open.delete(id);
    return type === FRAME.PRIORITY || isOver;
  });
}

/** Streams whose headers the two read otherwise. */
function oddStreams(frames: readonly Buffer[]): Set<string> {
  const hpack = new HpackDecoder();
  const odd = new Set<string>();
  for (const whole of frames) {
    // A client that resets a stream may have its answer already.
    if (whole[3] === FRAME.RST_STREAM) odd.add(String(whole.readUInt32BE(5) & 0x7fff_ffff));
    if (whole[3] !== FRAME.HEADERS) continue;
    const fields = new Map<string, string>();
    try {
      hpack.decode(whole.subarray(9), ({ name, value }) => fields.set(name, value));
    } catch {
      // Padded, or damaged: another difference than these is told all the same.
      continue;
    }
    // nghttp2 wants more of the pseudo-headers, and counts the body before its end; drops names that are none,
    // which this side refuses as it does control characters.
    const isOdd =
      !/^\/[!-~]*$/.test(fields.get(':path') ?? '') ||
      !/^[\w.:-]+$/.test(fields.get(':authority') ?? '') ||
      !/^[A-Z]+$/.test(fields.get(':method') ?? '') ||
      fields.get(':scheme') !== 'http' ||
      fields.has('content-length') ||
      [...fields].some(([name, value]) => !/^:?[a-z\d-]+$/.test(name) || !/^[ -~]*$/.test(value));
    if (isOdd) odd.add(String(whole.readUInt32BE(5) & 0x7fff_ffff));
  }
  return odd;
}

const isResetOrNone = (told: string | undefined) => told === undefined || told === 'reset 1';

function isSame(at: Case): boolean {
  const { own, node, frames } = at;
  if (own.end !== node.end || own.end !== 'open')
    return own.end === node.end || OF_CONNECTIONS.some((is) => is(at));
  const odd = oddStreams(frames);
  const ids = new Set([...Object.keys(own.streams), ...Object.keys(node.streams)]);
  return [...ids].every((id) => {
    const [one, other] = [own.streams[Number(id)], node.streams[Number(id)]];
    return one === other || (odd.has(id) && (isResetOrNone(one) || isResetOrNone(other)));
  });
}

const RUNS = Number(process.env.SEQUENCES ?? (process.env.LONG ? 10_000_000 : 5_000));

describe('the same frames to both servers of HTTP/2', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.listen();
  });
  afterAll(() => pair.close());

  /** @param more frames that Node's alone is sent. */
  const alike = (more: readonly Buffer[] = []) =>
    fc.asyncProperty(sequence, cuts, async (frames, pieces) => {
      const [own, node] = await Promise.all([
        pair.tell('own', frames, pieces),
        pair.tell('node', [...frames, ...more], pieces),
      ]);
      if (!isSame({ frames, own, node })) expect(own).toEqual(node);
    });

  it(`are answered alike, ${RUNS} sequences`, { timeout: 600_000 }, async () => {
    await fc.assert(alike(), {
      seed: 9113,
      numRuns: RUNS,
      interruptAfterTimeLimit: process.env.LONG ? 3_000_000 : 570_000,
    });
  });

  it('are found to be answered otherwise when one of them is asked for more', async () => {
    const one = frame(FRAME.HEADERS, END_STREAM | END_HEADERS, 99, block('/more'));
    expect((await fc.check(alike([one]), { seed: 9113, numRuns: 100 })).failed).toBe(true);
  });
});

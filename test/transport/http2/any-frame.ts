/** Frames of HTTP/2 for fuzzing: most are legal, each part of them is odd now and then. */
import fc from 'fast-check';
import { FLAG, FRAME, SETTING } from '../../../src/transport/http2/frames.ts';
import { encodeHeaders } from '../../../src/transport/http2/hpack.ts';
import { frame, nothing, uint32 } from '../../attacks/attack.ts';

const { END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK } = FLAG;
const MOST = 2 ** 31 - 1;
/** Of a stream's id, of an increment: to be ignored. */
const RESERVED = 2 ** 31;

type Fields = readonly (readonly [string, string])[];
const request = (path: string, ...more: Fields) =>
  encodeHeaders([[':method', 'POST'], [':scheme', 'http'], [':path', path], [':authority', 'a'], ...more]);
/** x: 1 and x: 2, which the table keeps; and what its newest entry is. */
const KEEPS = Buffer.from([0x40, 1, 0x78, 1, 0x31]);
const KEEPS_OTHER = Buffer.from([0x40, 1, 0x78, 1, 0x32]);
const NEWEST = Buffer.from([0xbe]);

const REQUESTS = [
  request('/a'),
  request('/b', ['x', 'y']),
  request('/c', ['content-length', '5']),
  Buffer.concat([request('/d'), KEEPS]),
  Buffer.concat([request('/d'), KEEPS_OTHER]),
  Buffer.concat([request('/e'), NEWEST]),
];
const ODD_REQUESTS = [
  // Not requests: fields that are missing, of the connection, in the wrong order, twice, of no name.
  encodeHeaders([
    [':method', 'GET'],
    [':scheme', 'http'],
  ]),
  request('/f', ['connection', 'close']),
  request('/g', ['te', 'gzip']),
  request('/h', ['Upper', 'case']),
  request('/i', [':path', '/j']),
  request('/k', ['x', 'y'], [':authority', 'b']),
  request('/l', [':unknown', 'y']),
  request('/m', ['x', 'a\nb']),
  request(''),
  request('/n', ['content-length', 'five']),
  // Larger than a list may be.
  request('/o', ['x', 'y'.repeat(16_300)]),
  Buffer.alloc(0),
];
/** Not HPACK: no such entry, an integer without end, a string cut off, a table that is too large. */
const NO_BLOCKS = [
  Buffer.concat([request('/p'), Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff])]),
  Buffer.from([0x80]),
  Buffer.from([0x40, 5, 0x78]),
  Buffer.from([0x3f, 0xe2, 0x1f]),
];
const TRAILERS = [encodeHeaders([['x-end', 'yes']]), encodeHeaders([['x-end', 'yes']]), request('/q')];

/** One odd one in so many. */
const sometimes = <T>(usual: fc.Arbitrary<T>, odd: fc.Arbitrary<T>, times = 80) =>
  fc.oneof({ weight: times, arbitrary: usual }, { weight: 1, arbitrary: odd });

/** The ids of a connection. Frames are made when their turn has come, so that most are of streams that then are open. */
export class Ids {
  #newest = -1;
  #open: number[] = [];

  next(): number {
    return this.#newest + 2;
  }

  /** The newest, or an older one, if there is any. */
  recent(age: number): number | undefined {
    return this.#newest < 0 ? undefined : Math.max(1, this.#newest - 2 * age);
  }

  /** Of those whose client has not ended them, if there is any. */
  open(which: number): number | undefined {
    return this.#open[which % this.#open.length];
  }

  /** These are sent. */
  note(frames: readonly Buffer[]): readonly Buffer[] {
    for (const whole of frames) {
      const [type, flags = 0, id] = [whole[3], whole[4], whole.readUInt32BE(5)];
      const isNew = type === FRAME.HEADERS && id > this.#newest && id < 2_000 && id % 2 === 1;
      if (isNew) this.#newest = id;
      if (isNew) this.#open.push(id);
      const isLast = type === FRAME.HEADERS || type === FRAME.DATA ? (flags & END_STREAM) !== 0 : false;
      if (isLast || type === FRAME.RST_STREAM) this.#open = this.#open.filter((other) => other !== id);
    }
    return frames;
  }
}
type Place = (ids: Ids) => number | undefined;
/** No frames where there is no stream for them. */
export type Making = (ids: Ids) => readonly Buffer[];
const making = (where: Place, make: (id: number) => readonly Buffer[]): Making => {
  return (ids) => {
    const id = where(ids);
    return id === undefined ? [] : ids.note(make(id));
  };
};

const oddPlace = fc.constantFrom(0, 2, 8, 1, 101, MOST - 1, MOST, RESERVED + 1, RESERVED + 15, RESERVED).map(
  (id): Place =>
    () =>
      id,
);
const recent = sometimes(
  fc.nat(4).map(
    (age): Place =>
      (ids) =>
        ids.recent(age),
  ),
  oddPlace,
);
const open = sometimes(
  fc.nat(4).map(
    (which): Place =>
      (ids) =>
        ids.open(which),
  ),
  fc.oneof(recent, oddPlace),
);
const fresh = sometimes(
  fc.constant<Place>((ids) => ids.next()),
  fc.oneof(recent, oddPlace),
);
/** Flags that mean nothing here. */
const noise = sometimes(fc.constant(0), fc.constantFrom(0x02, 0x40, 0x80, 0xc2), 9);
const filled = (length: number) => Buffer.alloc(length, 'x');

/** A frame with padding, honest or a lie: more than there is, or none where it is said. */
type Padding = (type: number, flags: number, id: number, bytes: Buffer) => Buffer;
const plain: Padding = (type, flags, id, bytes) => frame(type, flags, id, bytes);
const padWith = (make: (bytes: Buffer) => readonly Buffer[]): Padding => {
  return (type, flags, id, bytes) => frame(type, flags | PADDED, id, Buffer.concat(make(bytes)));
};
const padding = sometimes(
  fc.constant(plain),
  sometimes(
    fc.constantFrom(0, 1, 200).map((n) => padWith((bytes) => [Buffer.from([n]), bytes, Buffer.alloc(n)])),
    fc.constantFrom<Padding>(
      padWith(() => []),
      padWith(() => [Buffer.from([1])]),
      padWith((bytes) => [Buffer.from([Math.min(255, bytes.length + 1)]), bytes.subarray(0, 254)]),
    ),
    12,
  ),
  6,
);

const block = fc.oneof(
  { weight: 60, arbitrary: fc.constantFrom(...REQUESTS) },
  { weight: 6, arbitrary: fc.constantFrom(...TRAILERS) },
  { weight: 6, arbitrary: fc.constantFrom(...ODD_REQUESTS) },
  { weight: 1, arbitrary: fc.constantFrom(...NO_BLOCKS) },
);
/** A dependency of RFC 7540: on nothing, another, itself, or cut off. */
const dependency = sometimes(
  fc
    .constantFrom(0, 3, RESERVED + 5)
    .map((on) => (_id: number) => Buffer.concat([uint32(on), Buffer.from([15])])),
  fc.constantFrom(
    (id: number) => Buffer.concat([uint32(id), Buffer.from([0])]),
    () => Buffer.alloc(4),
    () => Buffer.alloc(6),
  ),
  30,
);
const priority = sometimes(fc.constant(undefined), dependency, 9);

/** HEADERS, with all that may stand before the block. */
const headersOf = (place: fc.Arbitrary<Place>, end: fc.Arbitrary<number>, blocks: fc.Arbitrary<Buffer>) =>
  fc.tuple(place, end, blocks, noise, priority, padding).map(([where, ends, bytes, more, depends, pad]) =>
    making(where, (id) => {
      const flags = END_HEADERS | ends | more | (depends === undefined ? 0 : PRIORITY);
      const whole = depends === undefined ? bytes : Buffer.concat([depends(id & MOST), bytes]);
      return [pad(FRAME.HEADERS, flags, id, whole)];
    }),
  );
const seldomLast = fc.constantFrom(0, 0, 0, END_STREAM);
const headers = headersOf(fresh, seldomLast, block);
const trailers = headersOf(
  open,
  sometimes(fc.constant(END_STREAM), fc.constant(0), 8),
  fc.constantFrom(...TRAILERS),
);
/** A block in two frames; or in what looks like it. */
const split = fc
  .tuple(fresh, seldomLast, block, fc.nat(100), sometimes(fc.constant(0), fc.integer({ min: 1, max: 5 }), 12))
  .map(([where, end, bytes, percent, oddity]) =>
    making(where, (id) => {
      const cut = Math.floor((percent / 100) * bytes.length);
      const rest = bytes.subarray(cut);
      const second = [
        frame(FRAME.CONTINUATION, END_HEADERS, id, rest),
        frame(FRAME.CONTINUATION, END_HEADERS, 0, rest),
        frame(FRAME.CONTINUATION, END_HEADERS, id + 2, rest),
        frame(FRAME.CONTINUATION, 0, id, rest),
        frame(FRAME.DATA, 0, id, rest),
        frame(0x77, 0, 0),
      ][oddity];
      return [frame(FRAME.HEADERS, end, id, bytes.subarray(0, cut)), second ?? nothing];
    }),
  );
const fewBytes = fc.constantFrom(0, 1, 5, 100).map(filled);
const manyBytes = fc.constantFrom(10_000, 16_000, 16_383).map(filled);
const data = fc
  .tuple(open, seldomLast, sometimes(fewBytes, manyBytes, 4), noise, padding)
  .map(([where, end, bytes, more, pad]) => making(where, (id) => [pad(FRAME.DATA, end | more, id, bytes)]));
/** Much of one stream, or more than its window, when nobody consumes it. */
const burst = fc
  .tuple(open, fc.integer({ min: 2, max: 5 }))
  .map(([where, times]) =>
    making(where, (id) => Array.from({ length: times }, () => frame(FRAME.DATA, 0, id, filled(16_000)))),
  );

const setting = fc.tuple(
  fc.constantFrom<number[]>(
    0,
    1,
    SETTING.ENABLE_PUSH,
    3,
    SETTING.INITIAL_WINDOW_SIZE,
    SETTING.INITIAL_WINDOW_SIZE,
    6,
  ),
  sometimes(fc.constantFrom(0, 1, 100, 65_535), fc.constantFrom(2 ** 20, MOST, 2 ** 31, 2 ** 32 - 1), 30),
);
const frameSize = fc.tuple(
  fc.constant<number>(SETTING.MAX_FRAME_SIZE),
  sometimes(fc.constantFrom(16_384, 2 ** 24 - 1), fc.constantFrom(0, 16_383, 2 ** 24), 12),
);
const entries = (all: readonly (readonly [number, number])[]) =>
  Buffer.concat(all.map(([name, value]) => Buffer.concat([uint32(name).subarray(2), uint32(value)])));
const settings = fc
  .tuple(
    sometimes(
      fc.array(sometimes(setting, frameSize), { maxLength: 3 }).map(entries),
      fc.constantFrom(1, 5, 7, 198).map((length) => Buffer.alloc(length)),
    ),
    sometimes(fc.constant(0), fc.constant(1), 60),
  )
  .map(([payload, id]) => frame(FRAME.SETTINGS, 0, id, payload));
const settingsAck = sometimes(
  fc.constant(frame(FRAME.SETTINGS, ACK, 0)),
  fc.constantFrom(frame(FRAME.SETTINGS, ACK, 0, filled(6)), frame(FRAME.SETTINGS, ACK, 1)),
  30,
);

const ofLength = (usual: number, ...odd: number[]) =>
  sometimes(fc.constant(usual), fc.constantFrom(...odd), 40).map((length) => Buffer.alloc(length, 8));
const increment = sometimes(
  fc.constantFrom(1, 100, 1_000, 65_535).map(uint32),
  fc.constantFrom(...[0, MOST, RESERVED, RESERVED + 100].map(uint32), Buffer.alloc(3, 1), Buffer.alloc(5, 1)),
  16,
);
const at = (
  place: fc.Arbitrary<Place>,
  type: number,
  payload: fc.Arbitrary<Buffer>,
  flags: fc.Arbitrary<number> = fc.constant(0),
) =>
  fc
    .tuple(place, payload, flags)
    .map(([where, bytes, flag]) => making(where, (id) => [frame(type, flag, id, bytes)]));
const connection = fc.constant<Place>(() => 0);
const small = fc.oneof(
  at(recent, FRAME.RST_STREAM, ofLength(4, 0, 3, 5)),
  at(fc.oneof(connection, recent), FRAME.WINDOW_UPDATE, increment),
  at(fc.oneof(connection, recent), FRAME.WINDOW_UPDATE, increment),
  at(
    sometimes(connection, recent),
    FRAME.PING,
    ofLength(8, 0, 7, 9),
    sometimes(fc.constant(0), fc.constant(ACK), 8),
  ),
  fc
    .tuple(recent, dependency)
    .map(([where, on]) => making(where, (id) => [frame(FRAME.PRIORITY, 0, id, on(id & MOST))])),
  fc.integer({ min: 10, max: 255 }).chain((type) => at(recent, type, fc.constant(filled(3)), noise)),
  sometimes(settings, settingsAck, 8).map((bytes) =>
    making(
      () => 0,
      () => [bytes],
    ),
  ),
);
const rare = fc.oneof(
  at(
    sometimes(connection, recent, 4),
    FRAME.GOAWAY,
    fc.constantFrom(8, 8, 0, 7, 20).map((n) => Buffer.alloc(n)),
  ),
  at(recent, FRAME.CONTINUATION, block, fc.constantFrom(0, END_HEADERS)),
  at(recent, FRAME.PUSH_PROMISE, fc.constant(Buffer.concat([uint32(2), request('/r')]))),
  // Longer than any frame may be.
  fc.nat(10).chain((type) => at(recent, type, fc.constant(Buffer.alloc(16_385)))),
);

/** A request that is not whole, and leaves an entry in the table: something for the frames after it to be about. */
export const FIRST = making(
  (ids) => ids.next(),
  (id) => [frame(FRAME.HEADERS, END_HEADERS, id, Buffer.concat([request('/first'), KEEPS]))],
);
/** One frame, or a few that belong together. */
export const anyFrames: fc.Arbitrary<Making> = fc.oneof(
  { weight: 40, arbitrary: headers },
  { weight: 40, arbitrary: data },
  { weight: 8, arbitrary: trailers },
  { weight: 6, arbitrary: split },
  { weight: 6, arbitrary: burst },
  { weight: 40, arbitrary: small },
  { weight: 2, arbitrary: rare },
);

/** What frames are, for people. */
export function inWords(whole: Buffer): string {
  const type = Object.entries(FRAME).find(([, number]) => number === whole[3])?.[0] ?? `type ${whole[3]}`;
  const payload = whole.subarray(9);
  const shown = payload.length > 40 ? `${payload.length} bytes` : payload.toString('hex');
  return `${type} flags=${whole[4]?.toString(16)} id=${whole.readUInt32BE(5)} ${shown}`;
}

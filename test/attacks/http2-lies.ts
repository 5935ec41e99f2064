import { FLAG, FRAME } from '../../src/transport/http2/frames.ts';
import {
  type Attack,
  frame,
  get,
  grpc,
  odd,
  PREFACE,
  post,
  REVOKE_OWN,
  SETTINGS,
  VALIDATE,
} from './attack.ts';

const { END_STREAM, END_HEADERS, PADDED } = FLAG;
const whole = END_HEADERS | END_STREAM;
const request = get('/healthz');
const lengthOf = (bytes: number, rest: Buffer) =>
  Buffer.concat([Buffer.from([bytes >> 16, bytes >> 8, bytes]), rest]);
const withFields = (bytes: Buffer) => Buffer.concat([request, bytes]);

/** Lengths, tables and names that are not as they say. */
export const http2Lies: Attack[] = [
  {
    name: 'claims frames of 16 MiB',
    run: (a) =>
      a.flood(() =>
        lengthOf(0xff_ffff, Buffer.concat([frame(FRAME.DATA, 0, 1).subarray(3), Buffer.alloc(9_000)])),
      ),
  },
  {
    name: 'claims more padding than frame',
    run: (a) => a.flood((i) => frame(FRAME.HEADERS, PADDED | END_HEADERS, odd(i), Buffer.from([255, 1]))),
  },
  {
    name: 'pads a byte with 255',
    run: (a) =>
      a.flood((i) =>
        Buffer.concat([
          ...(i === 0
            ? [frame(FRAME.HEADERS, END_HEADERS, 1, post(REVOKE_OWN, ['content-type', 'application/json']))]
            : []),
          frame(FRAME.DATA, PADDED, 1, Buffer.concat([Buffer.from([255, 0x20]), Buffer.alloc(255)])),
        ]),
      ),
  },
  {
    name: 'names one large entry of the table ten thousand times (HPACK bomb)',
    run: (a) => {
      const large = Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0xe9, 0x06]), Buffer.alloc(1_000, 'a')]);
      const bomb = Buffer.concat([request, large, Buffer.alloc(10_000, 0xbe)]);
      return a.flood((i) => frame(FRAME.HEADERS, whole, odd(i), bomb));
    },
  },
  {
    name: 'writes integers without end in HPACK',
    run: (a) => a.flood((i) => frame(FRAME.HEADERS, whole, odd(i), withFields(Buffer.alloc(4_000, 0xff)))),
  },
  {
    name: 'claims strings longer than their block in HPACK',
    run: (a) =>
      a.flood((i) =>
        frame(FRAME.HEADERS, whole, odd(i), withFields(Buffer.from([0x40, 0x7f, 0xff, 0xff, 0x7f]))),
      ),
  },
  {
    name: 'codes strings wrongly (Huffman)',
    run: (a) =>
      a.flood((i) =>
        frame(FRAME.HEADERS, whole, odd(i), withFields(Buffer.from([0x40, 0x84, 255, 255, 255, 255, 0]))),
      ),
  },
  {
    name: 'sends headers without names (0-length header leak)',
    cve: 'CVE-2019-9516',
    run: (a) => {
      const empty = Buffer.concat(Array.from({ length: 4_000 }, () => Buffer.from([0x40, 0, 0])));
      return a.flood((i) => frame(FRAME.HEADERS, whole, odd(i), withFields(empty)));
    },
  },
  {
    name: 'resizes the table in each of its blocks',
    run: (a) => {
      const block = Buffer.concat([
        Buffer.from([0x20, 0x3f, 0xe1, 0x1f]),
        request,
        Buffer.from([0x40, 1, 0x78, 1, 0x31]),
      ]);
      return a.flood((i) => frame(FRAME.HEADERS, whole, odd(i), block));
    },
  },
  {
    name: 'sends 16 000 bytes of headers with each request',
    run: (a) => {
      const headers = withFields(
        Buffer.concat([Buffer.from([0, 1, 0x78, 0x7f, 0x91, 0x7c]), Buffer.alloc(16_016, 'a')]).subarray(
          0,
          16_000,
        ),
      );
      return a.flood((i) => frame(FRAME.HEADERS, whole, odd(i), headers));
    },
  },
  ...(['', '[', 'a b', 'a:99999999', '\u00ff\u00ff', 'a/../@@b?#'].map((authority) => ({
    name: `asks for the authority ${JSON.stringify(authority)}`,
    run: (a) => {
      const bad = [
        [':method', 'POST'],
        [':scheme', 'http'],
        [':path', VALIDATE],
        [':authority', authority],
        ['content-type', 'application/json'],
      ] as const;
      return a.flood((i) => frame(FRAME.HEADERS, whole, odd(i), encoded(bad)));
    },
  })) satisfies Attack[]),
  {
    name: 'asks for paths that are no paths',
    run: (a) => {
      const paths = ['//', '/%', '/\\', '*', `/${'a'.repeat(8_000)}`, '/..//../etc/passwd', '/?%00'].map(
        (path) => get(path),
      );
      return a.flood((i) => frame(FRAME.HEADERS, whole, odd(i), paths[i % paths.length]));
    },
  },
  {
    name: 'claims deadlines of no time and of all time',
    run: (a) => {
      const deadlines = ['0n', '99999999H', '-1S', 'x'].map((text) =>
        grpc(REVOKE_OWN, ['grpc-timeout', text]),
      );
      return a.flood((i) => frame(FRAME.HEADERS, END_HEADERS, odd(i), deadlines[i % deadlines.length]));
    },
  },
  {
    name: 'begins with half of the preface and noise',
    run: async (a) => {
      while (a.going) {
        const socket = await a.open('h2');
        await a.send(socket, Buffer.concat([PREFACE.subarray(0, 12), Buffer.alloc(4_000, 7), SETTINGS]));
        socket.destroy();
      }
    },
  },
];

function encoded(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    fields.map(([name, value]) => {
      const [n, v] = [Buffer.from(name, 'latin1'), Buffer.from(value, 'latin1')];
      return Buffer.concat([Buffer.from([0, n.length]), n, Buffer.from([v.length]), v]);
    }),
  );
}

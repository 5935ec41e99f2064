// If this fails, a peer that makes this side work for nothing, or does not read, takes the server down.
import { constants } from 'node:http2';
import { describe, expect, it } from 'vitest';
import { encodeHeaders } from '../../../src/transport/http2/hpack.ts';
import { block, echoServer, FRAME, frame, PREFACE, uint32 } from '../../support/http2-echo.ts';

describe('a connection of our own HTTP/2', () => {
  const { state, around, client, ask, raw } = echoServer();

  it.each([
    // MadeYouReset, CVE-2025-8671: this side is made to reset what it has begun.
    [
      'requests with a window of nothing',
      (i: number) => [
        frame(FRAME.headers, 4, 2 * i + 1, block),
        frame(FRAME.window, 0, 2 * i + 1, uint32(0)),
      ],
    ],
    [
      'requests with a window too large',
      (i: number) => [
        frame(FRAME.headers, 4, 2 * i + 1, block),
        frame(FRAME.window, 0, 2 * i + 1, uint32(2 ** 31 - 1)),
      ],
    ],
    [
      'requests with more data than they said',
      (i: number) => [
        frame(FRAME.headers, 4, 2 * i + 1, Buffer.concat([block, encodeHeaders([['content-length', '1']])])),
        frame(FRAME.data, 0, 2 * i + 1, Buffer.from('ab')),
      ],
    ],
    [
      'requests with trailers that do not end them',
      (i: number) => [
        frame(FRAME.headers, 4, 2 * i + 1, block),
        frame(FRAME.headers, 4, 2 * i + 1, encodeHeaders([['x-a', 'b']])),
      ],
    ],
    [
      'requests that are none',
      (i: number) => [frame(FRAME.headers, 5, 2 * i + 1, encodeHeaders([['x-a', 'b']]))],
    ],
    ['windows of one byte', () => [frame(FRAME.window, 0, 0, uint32(1))]],
  ])('ends a connection that brings nothing but %s, and no other', async (_what, make) => {
    const session = client();
    await ask(session, Buffer.alloc(0));
    const { ended } = await raw(PREFACE, ...Array.from({ length: 1_100 }, (_, i) => make(i)).flat());
    expect(await ended).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    expect((await ask(session, Buffer.from('still'))).body.toString()).toBe('still');
    session.destroy();
  });

  it('lets a client cancel its watches all day', async () => {
    const cancelled = (i: number) => [
      frame(FRAME.headers, 4, 2 * i + 1, block),
      frame(FRAME.reset, 0, 2 * i + 1, uint32(8)),
    ];
    const { socket, ended, got } = await raw(PREFACE);
    for (let second = 0; second < 59; second++) {
      socket.write(Buffer.concat(Array.from({ length: 20 }, (_, i) => cancelled(20 * second + i)).flat()));
      while (state.lost < 20 * (second + 1)) await new Promise((resolve) => setImmediate(resolve));
      state.connections[0]?.tick(1_000 * (second + 1));
    }
    socket.write(frame(FRAME.headers, 5, 2_361, block));
    await got(frame(FRAME.headers, 5, 2_361, encodeHeaders([['x-end', 'yes']])));
    socket.destroy();
    await ended;
  });

  it('does not work through thousands of settings in one frame', async () => {
    const settings = Buffer.concat(Array.from({ length: 2_000 }, () => Buffer.from([0, 4, 0, 0, 255, 255])));
    const { ended } = await raw(PREFACE, frame(FRAME.settings, 0, 0, settings));
    expect(await ended).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });

  it('applies all settings of a frame before anything is sent that they let go', async () => {
    const setting = (value: number) => Buffer.concat([Buffer.from([0, 4]), uint32(value)]);
    const { socket, ended, got } = await raw(
      PREFACE,
      frame(FRAME.settings, 0, 0, setting(0)),
      frame(FRAME.headers, 4, 1, block),
      frame(FRAME.data, 1, 1, Buffer.from('hello')),
      frame(FRAME.settings, 0, 0, Buffer.concat([setting(3), setting(100_000)])),
    );
    // In one piece: a window of 3 would have cut it.
    await got(frame(FRAME.data, 0, 1, Buffer.from('hello')));
    socket.destroy();
    await ended;
  });

  it.each(['data', 'end', 'closed'] as const)('survives a receiver that throws in %s', async (name) => {
    const session = client();
    await ask(session, Buffer.alloc(0));
    const receiver = { data: () => {}, end: () => {}, closed: () => {} };
    receiver[name] = () => {
      throw new Error(`thrown in ${name}`);
    };
    const { begin: echo } = around;
    around.begin = () => receiver;
    const { ended, socket } = await raw(
      PREFACE,
      frame(FRAME.headers, 4, 1, block),
      frame(FRAME.data, 1, 1, block),
    );
    while (state.connections.length < 2 || state.accepted[1]?.bytesRead === 0)
      await new Promise((resolve) => setImmediate(resolve));
    if (name === 'closed') socket.destroy();
    const code = await ended;
    if (name !== 'closed') expect(code).toBe(constants.NGHTTP2_INTERNAL_ERROR);
    while (state.failures.length === 0) await new Promise((resolve) => setImmediate(resolve));
    around.begin = echo;
    expect(state.failures.map(String)).toEqual([`Error: thrown in ${name}`]);
    expect((await ask(session, Buffer.from('still'))).body.toString()).toBe('still');
    session.destroy();
  });

  it('takes no more of a body than a window until somebody wants it, and others do not wait for that', async () => {
    let arrived = 0;
    const { begin: echo } = around;
    const data = (part: Buffer) => {
      arrived += part.length;
    };
    around.begin = (stream) =>
      stream.headers.get(':path') === '/unwanted' ? { data, end: () => {}, closed: () => {} } : echo(stream);
    const session = client();
    const unwanted = Array.from({ length: 8 }, () => {
      const stream = session.request({ ':method': 'POST', ':path': '/unwanted' }).on('error', () => {});
      stream.write(Buffer.alloc(200_000));
      return stream;
    });
    while (arrived < 8 * 65_535) await new Promise((resolve) => setImmediate(resolve));
    expect((await ask(session, Buffer.alloc(100_000, 'a'))).body.length).toBe(100_000);
    expect(arrived).toBe(8 * 65_535);
    for (const stream of unwanted) stream.close(constants.NGHTTP2_CANCEL);
    // What they held of the connection's window is free again.
    expect((await ask(session, Buffer.alloc(900_000, 'a'))).body.length).toBe(900_000);
    around.begin = echo;
    session.destroy();
  });

  it('writes no more than a bounded part at once for a client with a large window that does not read', async () => {
    const session = client({ initialWindowSize: 2 ** 30 });
    await ask(session, Buffer.alloc(0));
    session.setLocalWindowSize(2 ** 30);
    const body = Buffer.alloc(800_000, 'a flow ');
    const answers = await Promise.all(Array.from({ length: 9 }, () => ask(session, body)));
    for (const answer of answers) expect(answer.body.equals(body)).toBe(true);
    session.destroy();
  });
});

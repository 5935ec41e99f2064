// If this fails, gRPC clients get broken answers, or one of them can stop the server for all the others.
import { once } from 'node:events';
import { constants } from 'node:http2';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HeaderField } from '../../../src/transport/http2/header-field.ts';
import { encodeHeaders } from '../../../src/transport/http2/hpack.ts';
import { RequestHeaders } from '../../../src/transport/http2/request-headers.ts';
import { HTTP2_SERVER_NAMES } from '../../support/http2.ts';
import {
  block,
  echoServer,
  FRAME,
  frame,
  LIMITS,
  OK,
  PREFACE,
  TRAILERS,
  uint32,
} from '../../support/http2-echo.ts';

/** nghttp2 drops them as they come, and keeps nothing of them. */
const UNCOUNTED_BY_NODE = new Set(['frames nobody knows', 'priorities', 'empty data']);

describe.each(HTTP2_SERVER_NAMES)('a connection, with HTTP2_SERVER=%s', (http2) => {
  const { state, around, client, ask, raw } = echoServer(http2);

  it('gives every header and every body back as it was sent, whatever the table has seen', async () => {
    const session = client();
    const text = fc.string({ unit: fc.integer({ min: 0x21, max: 0x7e }).map((c) => String.fromCharCode(c)) });
    const name = fc.constantFrom('x-a', 'x-b', 'user-agent', 'grpc-timeout', 'x-long-name-of-a-header');
    const headers = fc.dictionary(
      name,
      text.map((value) => `v${value}`),
    );
    await fc.assert(
      fc.asyncProperty(headers, fc.uint8Array({ maxLength: 2000 }), async (sent, bytes) => {
        const told = await ask(session, Buffer.from(bytes), { ':path': '/headers', ...sent });
        expect(Object.fromEntries(JSON.parse(told.body.toString()))).toEqual(sent);
        const echoed = await ask(session, Buffer.from(bytes));
        expect(echoed.body.equals(Buffer.from(bytes))).toBe(true);
        expect(echoed.trailers).toBe('yes');
      }),
      { seed: 7541, numRuns: 150 },
    );
    session.destroy();
  });

  it('keeps to the windows of a client that reads little, and sends it all in the end', async () => {
    const session = client({ initialWindowSize: 100 });
    const body = Buffer.alloc(300_000, 'a flow ');
    const answers = await Promise.all(Array.from({ length: 5 }, () => ask(session, body)));
    for (const answer of answers) expect(answer.body.equals(body)).toBe(true);
    session.destroy();
  });

  it('refuses more streams at once than are allowed, and takes others later', async () => {
    const session = client();
    await ask(session, Buffer.alloc(0));
    const { socket, ended, got } = await raw(
      PREFACE,
      ...Array.from({ length: 11 }, (_, i) => frame(FRAME.headers, 4, 2 * i + 1, block)),
    );
    await got(frame(FRAME.reset, 0, 21, uint32(constants.NGHTTP2_REFUSED_STREAM)));
    socket.destroy();
    await ended;
    expect((await ask(session, Buffer.from('later'))).body.toString()).toBe('later');
    session.destroy();
  });

  it('tells its peer of another limit', async () => {
    const session = client();
    await ask(session, Buffer.alloc(0));
    const told = once(session, 'remoteSettings');
    state.connections[0]?.limitStreams(3);
    expect((await told)[0]).toMatchObject({ maxConcurrentStreams: 3 });
    session.destroy();
  });

  it('finishes what is under way when it leaves, and takes nothing new', async () => {
    const session = client();
    const held1 = ask(session, Buffer.alloc(0), { ':path': '/hold' });
    while (state.held.length === 0) await ask(session, Buffer.alloc(0));
    const away = once(session, 'goaway');
    state.connections[0]?.shutDownGracefully();
    await away;
    state.held[0]?.respondWhole({ headers: OK, body: Buffer.from('late'), trailers: TRAILERS });
    expect((await held1).body.toString()).toBe('late');
    await once(session, 'close');
  });

  it('tells the receivers when a client goes away', async () => {
    const session = client();
    const holding = ask(session, Buffer.alloc(0), { ':path': '/hold' });
    while (state.held.length === 0) await ask(session, Buffer.alloc(0));
    session.destroy();
    await holding;
    while (state.lost === 0) await new Promise((resolve) => setImmediate(resolve));
    // Who answers all the same harms nobody.
    state.held[0]?.respondWhole({ headers: OK, body: Buffer.alloc(9), trailers: TRAILERS });
  });

  it('lets go of a peer that does not answer a ping', async () => {
    const { ended, got } = await raw(PREFACE);
    await got(frame(FRAME.settings, 1, 0));
    const [connection] = state.connections;
    connection?.tick(LIMITS.keepaliveMs);
    // Its payload is the server's own business.
    await got(frame(FRAME.ping, 0, 0, Buffer.alloc(8)).subarray(0, 9));
    connection?.tick(LIMITS.keepaliveMs + LIMITS.keepaliveTimeoutMs + 1);
    // Node says goodbye.
    expect(await ended).toBe(http2 === 'own' ? undefined : constants.NGHTTP2_NO_ERROR);
  });

  it('holds a bounded part of answers for which a client gives no window, and lets go of them in time', async () => {
    const session = client({ initialWindowSize: 0 });
    let held = 0;
    around.holdUnread = (bytes) => {
      held += bytes;
      return held <= 250_000;
    };
    const asked = Array.from({ length: 5 }, () => ask(session, Buffer.alloc(60_000)));
    // The fifth is one too many.
    expect(await Promise.race(asked)).toMatchObject({ rstCode: constants.NGHTTP2_ENHANCE_YOUR_CALM });
    expect(held).toBe(240_000);
    state.connections[0]?.tick(0);
    state.connections[0]?.tick(LIMITS.unreadResponseMs + 1);
    const codes = (await Promise.all(asked)).map(({ rstCode }) => rstCode);
    expect(codes.filter((code) => code === constants.NGHTTP2_CANCEL)).toHaveLength(4);
    expect(held).toBe(0);
    around.holdUnread = () => true;
    session.destroy();
  });

  it.runIf(http2 === 'own').each([
    ['its preface and settings', LIMITS.silentConnectionMs, PREFACE.subarray(0, 20)],
    [
      'the headers of a request',
      LIMITS.headersMs,
      Buffer.concat([PREFACE, frame(FRAME.headers, 0, 1, block)]),
    ],
    [
      'the frame of its headers',
      LIMITS.headersMs,
      Buffer.concat([PREFACE, frame(FRAME.headers, 4, 1, block).subarray(0, 12)]),
    ],
    [
      'a frame of a message',
      LIMITS.messageMs,
      Buffer.concat([
        PREFACE,
        frame(FRAME.headers, 4, 1, block),
        frame(FRAME.data, 0, 1, block).subarray(0, 12),
      ]),
    ],
  ])('a peer that never finishes %s does not stay', async (_what, patience, bytes) => {
    const { ended } = await raw(bytes);
    while (state.accepted[0]?.bytesRead !== bytes.length)
      await new Promise((resolve) => setImmediate(resolve));
    const [connection] = state.connections;
    connection?.tick(0);
    connection?.tick(patience);
    expect(state.accepted[0].destroyed).toBe(false);
    connection?.tick(patience + 1);
    expect(await ended).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });

  it.runIf(http2 === 'node').each([
    ['the headers of a request', frame(FRAME.headers, 0, 1, block)],
    ['the frame of its headers', frame(FRAME.headers, 4, 1, block).subarray(0, 12)],
    [
      'a frame of a message',
      Buffer.concat([frame(FRAME.headers, 4, 1, block), frame(FRAME.data, 0, 1, block).subarray(0, 12)]),
    ],
  ])('a peer that never finishes %s is asked soon, and does not stay', async (_what, bytes) => {
    const { socket, ended, got } = await raw(PREFACE);
    await got(frame(FRAME.settings, 1, 0));
    socket.write(bytes);
    const sent = PREFACE.length + bytes.length;
    while (state.accepted[0]?.bytesRead !== sent) await new Promise((resolve) => setImmediate(resolve));
    const [connection] = state.connections;
    connection?.tick(LIMITS.headersMs);
    // Its payload is the server's own business.
    await got(frame(FRAME.ping, 0, 0, Buffer.alloc(8)).subarray(0, 9));
    connection?.tick(LIMITS.headersMs + LIMITS.keepaliveTimeoutMs);
    expect(state.accepted[0].destroyed).toBe(false);
    connection?.tick(LIMITS.headersMs + LIMITS.keepaliveTimeoutMs + 1);
    await ended;
  });

  it.runIf(http2 === 'node')(
    'who has said nothing since the last ping is not asked anew for a minute',
    async () => {
      const session = client();
      let pings = 0;
      session.on('ping', () => pings++);
      await ask(session, Buffer.alloc(0));
      const [connection] = state.connections;
      const asked = once(session, 'ping');
      connection?.tick(LIMITS.headersMs);
      await asked;
      await new Promise((resolve) => session.ping(resolve));
      for (let now = 2 * LIMITS.headersMs; now < LIMITS.keepaliveMs; now += 1_000) connection?.tick(now);
      for (let trip = 0; trip < 2; trip++) await new Promise((resolve) => session.ping(resolve));
      expect(pings).toBe(1);
      session.destroy();
    },
  );

  it.each([
    [
      'requests that are reset at once',
      (i: number) => [frame(FRAME.headers, 4, 2 * i + 1, block), frame(FRAME.reset, 0, 2 * i + 1, uint32(8))],
    ],
    ['pings', () => [frame(FRAME.ping, 0, 0, Buffer.alloc(8))]],
    ['settings', () => [frame(FRAME.settings, 0, 0)]],
    ['frames nobody knows', () => [frame(0x77, 0, 0)]],
    ['priorities', () => [frame(2, 0, 1, Buffer.from([0, 0, 0, 3, 1]))]],
    [
      'continuations',
      (i: number) => [i === 0 ? frame(FRAME.headers, 0, 1, block) : frame(FRAME.continuation, 0, 1)],
    ],
    ['empty data', (i: number) => [i === 0 ? frame(FRAME.headers, 4, 1, block) : frame(FRAME.data, 0, 1)]],
  ])('ends a connection that brings nothing but %s, and no other', async (what, make) => {
    if (http2 === 'node' && UNCOUNTED_BY_NODE.has(what)) return;
    const session = client();
    await ask(session, Buffer.alloc(0));
    const { ended } = await raw(PREFACE, ...Array.from({ length: 1_100 }, (_, i) => make(i)).flat());
    expect(await ended).toBe(
      http2 === 'own' ? constants.NGHTTP2_ENHANCE_YOUR_CALM : constants.NGHTTP2_INTERNAL_ERROR,
    );
    expect((await ask(session, Buffer.from('still'))).body.toString()).toBe('still');
    session.destroy();
  });

  it('does not keep what a block names again and again', async () => {
    // x: 1000 letters, into the table; then that entry 10 000 times.
    const large = Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0xe9, 0x06]), Buffer.alloc(1_000, 'a')]);
    const bomb = Buffer.concat([block, large, Buffer.alloc(10_000, 0xbe)]);
    const { socket, ended, got } = await raw(PREFACE, frame(FRAME.headers, 5, 1, bomb));
    await got(frame(FRAME.reset, 0, 1, uint32(constants.NGHTTP2_ENHANCE_YOUR_CALM)));
    socket.destroy();
    await ended;
  });

  it('keeps nothing of headers beyond their limit', () => {
    const headers = new RequestHeaders(1_000);
    for (let i = 0; i < 100; i++) headers.add(HeaderField.of('x', 'a'.repeat(500)));
    expect(headers.tooLarge).toBe(true);
    expect(headers.get('x')?.length).toBeLessThan(1_001);
  });

  it.runIf(http2 === 'own')('reads the same bytes anew when they change the table', async () => {
    // x: 1, into the table, twice; then the older of the two.
    const adds = Buffer.concat([block, Buffer.from([0x40, 1, 0x78, 1, 0x31])]);
    const uses = Buffer.concat([block, Buffer.from([0xbf])]);
    const sent = [adds, adds, uses].map((headers, i) => frame(FRAME.headers, 5, 2 * i + 1, headers));
    const { socket, ended, got } = await raw(PREFACE, ...sent);
    await got(frame(FRAME.headers, 5, 5, encodeHeaders([['x-end', 'yes']])));
    socket.destroy();
    await ended;
  });

  it.runIf(http2 === 'own')(
    'survives anything: what is damaged ends its own connection at most',
    async () => {
      const good = [
        frame(FRAME.headers, 4, 1, block),
        frame(FRAME.data, 1, 1, Buffer.from('hello')),
        frame(FRAME.window, 0, 0, uint32(1000)),
        frame(FRAME.headers, 0, 3, block.subarray(0, 5)),
        frame(FRAME.continuation, 4, 3, block.subarray(5)),
        frame(FRAME.data, 1, 3, Buffer.alloc(3000)),
        frame(FRAME.reset, 0, 3, uint32(8)),
      ];
      const session = client();
      const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 12 });
      await fc.assert(
        fc.asyncProperty(damage, fc.array(fc.nat(200), { maxLength: 20 }), async (changes, cuts) => {
          const bytes = Buffer.concat([PREFACE, ...good]);
          for (const [at, value] of changes) bytes[at % bytes.length] = value;
          const { socket, ended } = await raw();
          let at = 0;
          for (const cut of cuts) {
            socket.write(bytes.subarray(at, at + cut));
            at = Math.min(bytes.length, at + cut);
            await new Promise((resolve) => setImmediate(resolve));
          }
          socket.end(bytes.subarray(at));
          await ended;
          expect((await ask(session, Buffer.from('still'))).body.toString()).toBe('still');
        }),
        { seed: 9113, numRuns: Number(process.env.LONG ? 20_000 : 300) },
      );
      session.destroy();
    },
  );
});

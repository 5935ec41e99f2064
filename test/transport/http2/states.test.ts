// If this fails, a sequence of frames brings our HTTP/2 into a state that the protocol does not have.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LIMITS as SERVER_LIMITS } from '../../../src/rpc/limits.ts';
import { Http2Connection } from '../../../src/transport/http2/connection.ts';
import { ERROR, FLAG, FRAME } from '../../../src/transport/http2/frames.ts';
import { HpackDecoder } from '../../../src/transport/http2/hpack.ts';
import { ResponseHeaders, type ServerStream } from '../../../src/transport/http2/transport.ts';
import { frame, PREFACE, post, SETTINGS, uint32 } from '../../attacks/attack.ts';
import { anyFrames, FIRST, Ids, inWords, type Making } from './any-frame.ts';
import { MemorySocket } from './memory-socket.ts';
import { Http2Model, type ModelStream, type Verdict } from './model.ts';

const LIMITS = { ...SERVER_LIMITS, streamsPerConnection: 4 };
const CONNECTION_WINDOW = 2 ** 20;
const STREAM_WINDOW = 65_535;
const OK = new ResponseHeaders([[':status', '200']]);
const TRAILERS = new ResponseHeaders([['x-end', 'yes']]);
const NOTHING: Verdict = { ends: new Set(), heard: [], acknowledged: [] };

/** Our server, in memory. */
class Server {
  readonly socket = new MemorySocket();
  readonly connection: Http2Connection;
  readonly streams = new Map<number, ServerStream & { readonly id: number }>();
  readonly ids = new Ids();
  #heard: string[] = [];

  constructor() {
    const around = {
      begin: (stream: ServerStream) => this.#begin(stream as ServerStream & { readonly id: number }),
      failed: (error: unknown) => {
        throw error;
      },
      holdUnread: () => true,
    };
    this.connection = new Http2Connection(this.socket.asSocket, '', LIMITS, around, 0);
  }

  #begin(stream: ServerStream & { readonly id: number }) {
    this.streams.set(stream.id, stream);
    const hear = (what: string) => void this.#heard.push(`${stream.id} ${what}`);
    hear(`begin ${JSON.stringify([...stream.headers.fields])}`);
    return {
      data: (part: Buffer) => hear(`data ${part.length}`),
      end: () => hear('end'),
      closed: () => hear('closed'),
    };
  }

  async told(): Promise<{ frames: Buffer[]; heard: string[] }> {
    const bytes = await this.socket.taken();
    const frames: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += 9 + bytes.readUIntBE(at, 3))
      frames.push(bytes.subarray(at, at + 9 + bytes.readUIntBE(at, 3)));
    const heard = this.#heard;
    this.#heard = [];
    return { frames, heard };
  }
}

/** Compares a server with what it must be. */
class Judge {
  readonly server = new Server();
  readonly model = new Http2Model({
    streams: LIMITS.streamsPerConnection,
    headerBytes: LIMITS.headerBytes,
    settings: 32,
  });
  readonly #hpack = new HpackDecoder();
  /** Types and errors of frames that ended something. */
  readonly #met: Set<string>;
  /** Until now, for people. */
  readonly #story: (Buffer | string)[] = [];

  constructor(met: Set<string>) {
    this.#met = met;
  }

  /** @param settles whether the client sends its settings first, as it must. */
  async begin(settles: boolean): Promise<void> {
    this.server.socket.receive(PREFACE);
    await this.judge({ ...NOTHING, acknowledged: [FRAME.SETTINGS] }, SETTINGS);
    if (!settles) return;
    await this.send(SETTINGS);
    for (const whole of FIRST(this.server.ids)) await this.send(whole);
  }

  async send(whole: Buffer, cut = 0): Promise<void> {
    this.#story.push(whole);
    const { socket } = this.server;
    const verdict = this.model.frame(whole);
    socket.receive(whole.subarray(0, cut));
    socket.receive(whole.subarray(cut));
    await this.judge(verdict, whole);
  }

  note(what: string): void {
    this.#story.push(what);
  }

  async judge(verdict: Verdict, whole: Buffer): Promise<void> {
    const { frames, heard } = await this.server.told();
    try {
      this.#compare(verdict, whole, frames, heard);
    } catch (error) {
      const story = this.#story.map((part) => (typeof part === 'string' ? part : inWords(part)));
      const told = [...frames.map(inWords), ...heard];
      throw new Error(`after\n${story.join('\n')}\nthe server said\n${told.join('\n')}`, { cause: error });
    }
  }

  #compare(verdict: Verdict, whole: Buffer, frames: Buffer[], heard: string[]) {
    const id = whole.readUInt32BE(5) & 0x7fff_ffff;
    if (verdict.ends.size > 0) return this.#ended(verdict, frames, heard);
    const expected = {
      resets: new Map(verdict.resets === undefined ? [] : [[id, verdict.resets]]),
      heard: verdict.heard.map((what) => `${id} ${what}`),
      acknowledged: [...verdict.acknowledged],
    };
    for (const each of frames) this.#observe(each, whole, expected);
    assert.equal(expected.resets.size, 0);
    assert.equal(expected.acknowledged.length, 0);
    assert.deepEqual(heard.sort(), expected.heard.sort());
    this.#settled();
  }

  #ended({ ends }: Verdict, frames: Buffer[], heard: string[]): void {
    const last = frames.at(-1) ?? Buffer.alloc(0);
    assert.equal(last[3], FRAME.GOAWAY);
    assert.ok(ends.has(last.readUInt32BE(13)));
    this.#met.add(`${FRAME.GOAWAY} ${last.readUInt32BE(13)}`);
    assert.ok(this.server.socket.destroyed);
    assert.deepEqual(heard.sort(), [...this.model.streams.keys()].map((id) => `${id} closed`).sort());
  }

  #observe(
    told: Buffer,
    asked: Buffer,
    expected: { resets: Map<number, number>; heard: string[]; acknowledged: number[] },
  ) {
    const { model } = this;
    const [type, flags, id] = [told[3] ?? 0, told[4] ?? 0, told.readUInt32BE(5)];
    const payload = told.subarray(9);
    const stream = model.streams.get(id);
    assert.ok(payload.length <= 16_384);
    switch (type) {
      case FRAME.HEADERS:
        this.#hpack.decode(payload, () => {});
        assert.ok(stream?.answered && stream.localOpen);
        break;
      case FRAME.DATA:
        this.#sentData(stream, payload.length);
        break;
      case FRAME.RST_STREAM:
        assert.equal(expected.resets.get(id), payload.readUInt32BE(0));
        expected.resets.delete(id);
        this.#met.add(`${type} ${payload.readUInt32BE(0)}`);
        return;
      case FRAME.WINDOW_UPDATE:
        return this.#credited(id, stream, payload.readUInt32BE(0));
      default:
        // Acknowledgements, and what the server says when it leaves.
        assert.equal(expected.acknowledged.shift(), type);
        if (type === FRAME.PING && (flags & FLAG.ACK) !== 0) assert.deepEqual(payload, asked.subarray(9));
        return;
    }
    if ((flags & FLAG.END_STREAM) === 0 || stream === undefined) return;
    assert.equal(stream.ends && stream.queued, 0);
    stream.localOpen = false;
    if (!stream.remoteOpen) return model.close(id);
    // What the client has not sent yet is not wanted any more.
    expected.resets.set(id, 0);
    expected.heard.push(`${id} closed`);
    model.wasReset(id);
  }

  #sentData(stream: ModelStream | undefined, bytes: number): void {
    assert.ok(stream?.localOpen);
    if (stream === undefined) return;
    assert.ok(bytes <= Math.max(0, Math.min(stream.sendWindow, this.model.sendWindow)));
    assert.ok(bytes <= stream.queued);
    stream.sendWindow -= bytes;
    this.model.sendWindow -= bytes;
    stream.queued -= bytes;
  }

  #credited(id: number, stream: ModelStream | undefined, bytes: number): void {
    assert.ok(bytes > 0);
    if (id === 0) {
      this.model.receiveWindow += bytes;
      assert.ok(this.model.receiveWindow <= CONNECTION_WINDOW - this.model.unconsumed);
    } else if (stream !== undefined) {
      stream.receiveWindow += bytes;
      assert.ok(stream.receiveWindow <= STREAM_WINDOW - stream.unconsumed);
    } else assert.fail('credit for no stream');
  }

  /** Nothing waits that could go on, and no window is kept that nobody needs. */
  #settled(): void {
    const { model, server } = this;
    for (const { queued, sendWindow, ends, localOpen } of model.streams.values()) {
      assert.ok(!(queued > 0 && sendWindow > 0 && model.sendWindow > 0));
      assert.ok(!(localOpen && ends && queued === 0));
    }
    for (const { remoteOpen, receiveWindow, unconsumed } of model.streams.values())
      if (remoteOpen) assert.ok(receiveWindow + unconsumed > STREAM_WINDOW / 2);
    assert.ok(model.receiveWindow + model.unconsumed > CONNECTION_WINDOW / 2);
    assert.equal(server.connection.busy, model.streams.size > 0);
    assert.ok(!server.socket.destroyed);
    if (model.leaves === 'heard' && model.streams.size === 0) model.over = true;
    assert.equal(server.socket.ended, model.over);
  }
}

type Step = fc.AsyncCommand<Http2Model, Judge>;

/** The client sends frames, in two pieces each. */
const sends = fc.tuple(anyFrames, fc.nat(30)).map(([making, cut]): Step => {
  const made: Buffer[] = [];
  return {
    check: (model) => !model.over,
    run: async (model, judge) => {
      made.length = 0;
      for (const whole of (making as Making)(judge.server.ids)) {
        made.push(whole);
        if (!model.over) await judge.send(whole, cut);
      }
    },
    toString: () => made.map(inWords).join(', '),
  };
});

/** Somebody inside does something with one of the streams that a test of the model finds. */
function acts(
  name: string,
  finds: (stream: ModelStream) => boolean,
  does: (stream: ModelStream, inside: ServerStream, judge: Judge, verdict: Verdict) => void,
) {
  return fc.nat(3).map((which): Step => {
    const found = (model: Readonly<Pick<Http2Model, 'streams'>>) => [...model.streams.values()].filter(finds);
    return {
      check: (model) => !model.over && found(model).length > 0,
      run: async (model, judge) => {
        const all = found(model);
        const stream = all[which % all.length] as ModelStream;
        const inside = judge.server.streams.get(stream.id) as ServerStream;
        judge.note(`${name} ${stream.id}`);
        const verdict = { ...NOTHING, heard: [] };
        does(stream, inside, judge, verdict);
        await judge.judge(verdict, frame(0, 0, stream.id));
      },
      toString: () => name,
    };
  });
}

const waits = ({ answered }: ModelStream) => !answered;
const answers = fc.constantFrom(0, 5, 20_000, 90_000).chain((bytes) =>
  acts(`answers with ${bytes} bytes`, waits, (stream, inside) => {
    Object.assign(stream, { answered: true, queued: bytes, ends: true });
    inside.respondWhole({ headers: OK, body: Buffer.alloc(bytes), trailers: TRAILERS });
  }),
);
const refuses = acts('answers with headers alone', waits, (stream, inside) => {
  Object.assign(stream, { answered: true, ends: true });
  inside.respond(OK, true);
});
const begins = fc.constantFrom(1, 40_000).chain((bytes) =>
  acts(`begins to answer, ${bytes} bytes`, waits, (stream, inside) => {
    Object.assign(stream, { answered: true, queued: bytes });
    inside.respond(OK);
    inside.send(Buffer.alloc(bytes));
  }),
);
const hasBegun = ({ answered, ends }: ModelStream) => answered && !ends;
const finishes = fc.boolean().chain((withTrailers) =>
  acts('ends its answer', hasBegun, (stream, inside) => {
    stream.ends = true;
    inside.end(withTrailers ? TRAILERS : undefined);
  }),
);
const resets = acts(
  'resets',
  () => true,
  ({ id }, inside, { model }, verdict) => {
    Object.assign(verdict, { resets: 8 });
    verdict.heard.push('closed');
    model.wasReset(id);
    inside.reset(8);
  },
);
const consumes = acts(
  'consumes',
  ({ unconsumed }) => unconsumed > 0,
  (stream, inside, { model }) => {
    const { unconsumed } = stream;
    stream.unconsumed = 0;
    model.unconsumed -= unconsumed;
    inside.consumed(unconsumed);
  },
);

/** Whoever still holds a stream that is over harms nobody. */
const late = fc.constant<Step>({
  check: (model) => !model.over && model.lastId > 0,
  run: async (model, judge) => {
    judge.note('late');
    for (const [id, inside] of judge.server.streams) {
      if (model.streams.has(id)) continue;
      inside.respondWhole({ headers: OK, body: Buffer.alloc(9), trailers: TRAILERS });
      inside.send(Buffer.alloc(9));
      inside.end();
      inside.consumed(9);
      inside.reset(8);
      await inside.drained();
    }
    await judge.judge(NOTHING, frame(0, 0, 0));
  },
  toString: () => 'late',
});
const leaves = fc.constant<Step>({
  check: (model) => !model.over && model.leaves === 'no',
  run: async (model, judge) => {
    judge.note('leaves');
    model.leaves = 'asked';
    judge.server.connection.shutDownGracefully();
    await judge.judge({ ...NOTHING, acknowledged: [FRAME.GOAWAY, FRAME.PING] }, frame(0, 0, 0));
  },
  toString: () => 'leaves',
});

const inner = [answers, answers, refuses, begins, finishes, consumes, consumes, resets, late, leaves];
const steps = fc.commands([...Array.from({ length: 32 }, () => sends), ...inner, ...inner.slice(0, -1)], {
  maxCommands: 60,
  size: 'max',
});
const settles = fc.nat(50).map((n) => n > 0);
const RUNS = process.env.LONG ? 500_000 : 2_000;
/** They must come up, or the sequences are too tame. */
const RESETS = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'FLOW_CONTROL_ERROR',
  'REFUSED_STREAM',
  'ENHANCE_YOUR_CALM',
] as const;
const ENDS = [
  ...(['PROTOCOL_ERROR', 'FLOW_CONTROL_ERROR', 'STREAM_CLOSED', 'FRAME_SIZE_ERROR'] as const),
  ...(['COMPRESSION_ERROR', 'ENHANCE_YOUR_CALM'] as const),
];

describe('a connection of our own HTTP/2, judged by a model of RFC 9113', () => {
  it(`is in the state that it must be in, ${RUNS} sequences`, { timeout: 3_600_000 }, async () => {
    const met = new Set<string>();
    await fc.assert(
      fc.asyncProperty(settles, steps, async (isSettled, commands) => {
        const judge = new Judge(met);
        await judge.begin(isSettled);
        await fc.asyncModelRun(() => ({ model: judge.model, real: judge }), commands);
        judge.server.connection.destroy();
      }),
      { seed: 9113, numRuns: RUNS },
    );
    for (const name of RESETS) expect(met).toContain(`${FRAME.RST_STREAM} ${ERROR[name]}`);
    for (const name of ENDS) expect(met).toContain(`${FRAME.GOAWAY} ${ERROR[name]}`);
  });

  /** What the judge looks at after each frame: that the client may go on sending. */
  it.each([
    [
      'of streams that were reset',
      () => [
        frame(FRAME.WINDOW_UPDATE, 0, 1, uint32(0)),
        ...Array.from({ length: 70 }, () => frame(FRAME.DATA, 0, 1, Buffer.alloc(16_000))),
      ],
    ],
    [
      'that is padding',
      () => Array.from({ length: 5_000 }, () => frame(FRAME.DATA, FLAG.PADDED, 1, Buffer.alloc(256, 254))),
    ],
    [
      'that nobody wanted before its stream was cancelled',
      () =>
        Array.from({ length: 20 }, (_, i) => [
          frame(FRAME.HEADERS, FLAG.END_HEADERS, 2 * i + 3, post('/')),
          ...Array.from({ length: 4 }, () => frame(FRAME.DATA, 0, 2 * i + 3, Buffer.alloc(16_000))),
          frame(FRAME.RST_STREAM, 0, 2 * i + 3, uint32(8)),
        ]).flat(),
    ],
  ])('gives back the window of data %s', async (_what, frames) => {
    const judge = new Judge(new Set());
    await judge.begin(true);
    for (const whole of frames()) await judge.send(whole);
    expect(judge.model.over).toBe(false);
  });
});

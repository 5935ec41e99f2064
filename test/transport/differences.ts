/** Where Node's HTTP/2 answers otherwise than ours: the table of docs/design/http2.md, as a program reads it. */
import { FLAG, FRAME, SETTING } from '../../src/transport/http2/frames.ts';
import { frame, post, settings, uint32 } from '../attacks/attack.ts';
import type { Told } from './differential.ts';
import { type Fields, Http2Model } from './http2/model.ts';

const STREAM_WINDOW = 65_535;
const HEADER_BYTES = 16 << 10;

/** What is odd in a sequence. */
type Oddity =
  /** A frame of a stream that is over, or that its client has ended. */
  | 'late'
  /** PRIORITY, or a dependency in HEADERS. */
  | 'priority'
  /** An acknowledgement of no PING, or of no SETTINGS. */
  | 'unasked'
  | 'goaway'
  /** A server must reset a stream for what its client does. */
  | 'offence'
  /** A body and its content-length. */
  | 'length'
  /** Fields that one of the two takes. */
  | 'fields'
  /** A list of headers of about the size that is allowed. */
  | 'large'
  /** Settings make the windows of streams smaller. */
  | 'smaller'
  /** An answer for which there is no window. */
  | 'blocked'
  /** All bodies together are more than the window of the connection: refusing one stream lets another be answered. */
  | 'crowded'
  /** One frame has a setting twice. */
  | 'twice'
  /** WINDOW_UPDATE of nothing, or to more than a window may have. */
  | 'increment';

/** What is odd of a connection, and of each stream. */
export class Oddities {
  readonly #all = new Set<Oddity>();
  readonly #streams = new Map<number, Set<Oddity>>();
  readonly #model = new Http2Model({ streams: 100, headerBytes: HEADER_BYTES, settings: 32 });

  #window = STREAM_WINDOW;
  #received = 0;
  readonly #increments = new Map<number, number>();
  readonly #bodies = new Map<number, number>();

  /** @param bytes what follows the first SETTINGS. */
  constructor(bytes: Buffer) {
    this.#model.hasSettings = true;
    for (let at = 0; bytes.length - at >= 9 && !this.#model.over; ) {
      const end = at + 9 + bytes.readUIntBE(at, 3);
      this.#frame(bytes.subarray(at, end));
      at = end;
    }
  }

  has(...oddities: Oddity[]): boolean {
    return oddities.some((oddity) => this.#all.has(oddity));
  }

  of(id: number, ...oddities: Oddity[]): boolean {
    return oddities.some((oddity) => this.#streams.get(id)?.has(oddity));
  }

  #note(id: number, oddity: Oddity): void {
    this.#all.add(oddity);
    const noted = this.#streams.get(id);
    if (noted === undefined) this.#streams.set(id, new Set([oddity]));
    else noted.add(oddity);
  }

  #frame(whole: Buffer): void {
    const [type = 0, flags = 0] = [whole[3], whole[4]];
    const id = whole.readUInt32BE(5) & 0x7fff_ffff;
    const stream = this.#model.streams.get(id);
    const isBody = type === FRAME.DATA || type === FRAME.HEADERS;
    const isOfStream = isBody || type === FRAME.RST_STREAM || type === FRAME.WINDOW_UPDATE;
    if (isOfStream && id % 2 === 1 && id <= this.#model.lastId)
      if (stream === undefined || (isBody && !stream.remoteOpen)) this.#note(id, 'late');
    if (type === FRAME.PRIORITY || (type === FRAME.HEADERS && (flags & FLAG.PRIORITY) !== 0))
      this.#note(id, 'priority');
    if (type === FRAME.PING || type === FRAME.SETTINGS)
      if ((flags & FLAG.ACK) !== 0) this.#note(0, 'unasked');
    if (type === FRAME.GOAWAY) this.#note(0, 'goaway');
    if (type === FRAME.SETTINGS) this.#settings(whole.subarray(9));
    if (type === FRAME.DATA) {
      const sum = (this.#bodies.get(id) ?? 0) + whole.length - 9;
      this.#bodies.set(id, sum);
      this.#received += whole.length - 9;
      if (this.#received > STREAM_WINDOW) this.#note(id, 'crowded');
      // It does not wait for a window: whether there is one again depends on what the server has read by then.
      if (sum > STREAM_WINDOW) this.#note(id, 'offence');
    }
    if (type === FRAME.WINDOW_UPDATE && whole.length === 13) {
      const increment = whole.readUInt32BE(9) % 2 ** 31;
      const sum = (this.#increments.get(id) ?? 0) + increment;
      this.#increments.set(id, sum);
      if (increment === 0 || this.#window + sum >= 2 ** 31) this.#note(id, 'increment');
    }
    const { resets, heard, fields } = this.#model.frame(whole);
    if (resets !== undefined) this.#note(id, 'offence');
    if (fields !== undefined) this.#fields(id, fields);
    if (heard.includes('end')) Object.assign(this.#model.streams.get(id) ?? {}, { answered: true });
    this.#echo();
  }

  #settings(payload: Buffer): void {
    const names = new Set<number>();
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      const [name, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
      if (names.has(name)) this.#note(0, 'twice');
      names.add(name);
      if (name !== SETTING.INITIAL_WINDOW_SIZE) continue;
      if (value < this.#window) this.#note(0, 'smaller');
      this.#window = value;
      for (const [id, sum] of this.#increments) {
        if (id === 0 || value + sum < 2 ** 31) continue;
        this.#note(id, 'increment');
        if (!this.#model.streams.has(id)) this.#note(id, 'late');
      }
    }
  }

  #fields(id: number, fields: Fields): void {
    const value = (name: string) => fields.find(([other]) => other === name)?.[1] ?? '';
    const bytes = fields.reduce((sum, [name, { length }]) => sum + name.length + length + 32, 0);
    if (bytes > HEADER_BYTES - 1_000) this.#note(id, 'large');
    if (fields.some(([name]) => name === 'content-length')) this.#note(id, 'length');
    const isPlain =
      /^\/[!-~]*$/.test(value(':path')) &&
      /^[\w.:-]+$/.test(value(':authority')) &&
      /^[A-Z]+$/.test(value(':method')) &&
      value(':scheme') === 'http' &&
      fields.every(([name, text]) => /^:?[a-z\d-]+$/.test(name) && /^[ -~]*$/.test(text));
    if (!isPlain) this.#note(id, 'fields');
  }

  /** All that comes is consumed, all that is whole is answered with its body as far as the windows go. */
  #echo(): void {
    const model = this.#model;
    Object.assign(model, { receiveWindow: 2 ** 20, unconsumed: 0 });
    for (const stream of [...model.streams.values()]) {
      Object.assign(stream, { receiveWindow: STREAM_WINDOW, unconsumed: 0 });
      if (!stream.answered) continue;
      const most = Math.max(
        0,
        Math.min(stream.received - stream.queued, stream.sendWindow, model.sendWindow),
      );
      // Of an echo what is queued counts upwards: what has been sent.
      stream.queued += most;
      stream.sendWindow -= most;
      model.sendWindow -= most;
      if (stream.queued === stream.received) model.close(stream.id);
      else this.#note(stream.id, 'blocked');
    }
  }
}

/** A sequence, and what came of it. */
export interface Case {
  readonly odd: Oddities;
  readonly own: Told;
  readonly node: Told;
}

interface Difference {
  /** As docs/design/http2.md has it. */
  readonly name: string;
  /** Frames behind a request on stream 1 that is not whole. */
  readonly shows: readonly Buffer[];
  /** Whether it explains that the connections do not end alike. */
  readonly connection?: (at: Case) => boolean;
  /** Whether it explains that a stream does not: its id, and what came of it here and there. */
  readonly stream?: (odd: Oddities, id: number, own: string, node: string) => boolean;
}

const { END_STREAM, END_HEADERS } = FLAG;
const last = frame(FRAME.DATA, END_STREAM, 1);
const asks = (block: Buffer) => frame(FRAME.HEADERS, END_HEADERS | END_STREAM, 3, block);
const lives = ({ end }: Told) => end === 'open';

/** Node's has reset the stream already, and drops what ends the connection here. */
const hasReset = ({ own, node }: Case) =>
  /^GOAWAY [156]$/.test(own.end) && lives(node) && Object.values(node.streams).includes('reset 1');

export const DIFFERENCES: readonly Difference[] = [
  {
    name: 'the error that ends a connection, and what was answered just before',
    // Padded, without the byte that says how much.
    shows: [frame(FRAME.DATA, FLAG.PADDED, 1)],
    connection: ({ own, node }) => !lives(own) && !lives(node),
  },
  {
    name: 'frames of streams that are over',
    shows: [last, frame(FRAME.RST_STREAM, 0, 1, uint32(8)), frame(FRAME.HEADERS, END_HEADERS, 1, post('/'))],
    connection: ({ odd, own, node }) => odd.has('late') && /^GOAWAY [156]$/.test(own.end) && lives(node),
  },
  {
    name: 'PRIORITY, and dependencies in HEADERS',
    shows: [frame(FRAME.PRIORITY, 0, 1, Buffer.from([0, 0, 0, 1, 0]))],
    connection: ({ odd, own, node }) => odd.has('priority') && /^GOAWAY [16]$/.test(own.end) && lives(node),
  },
  {
    name: 'an acknowledgement of no PING, or of no SETTINGS',
    shows: [frame(FRAME.PING, FLAG.ACK, 0, Buffer.alloc(8))],
    connection: ({ odd, own, node }) => odd.has('unasked') && lives(own) && /^GOAWAY [12]$/.test(node.end),
  },
  {
    name: 'GOAWAY of a client',
    shows: [frame(FRAME.GOAWAY, 0, 0, Buffer.alloc(8))],
    connection: ({ odd, own, node }) => odd.has('goaway') && lives(own) && !lives(node),
  },
  {
    name: 'a stream that must be reset',
    shows: [frame(FRAME.WINDOW_UPDATE, 0, 1, uint32(0))],
    connection: ({ odd, own, node }) => odd.has('offence') && lives(own) && /^GOAWAY [1235]$/.test(node.end),
  },
  {
    name: 'an answer, and what comes right behind its request',
    shows: [frame(FRAME.DATA, END_STREAM, 1, Buffer.from('x')), frame(FRAME.RST_STREAM, 0, 1, uint32(8))],
    stream: (odd, id, own, node) =>
      (odd.of(id, 'late') && /bytes$/.test(own) && /^(none|reset [13])$/.test(node)) ||
      (odd.has('smaller', 'blocked', 'crowded') &&
        [own, node].includes('none') &&
        /bytes$/.test(own === 'none' ? node : own)),
  },
  {
    name: 'WINDOW_UPDATE of 0, or of too much, on a stream that is over or being answered',
    shows: [last, frame(FRAME.WINDOW_UPDATE, 0, 1, uint32(0))],
    connection: ({ odd, own, node }) =>
      odd.has('late', 'blocked') && odd.has('increment') && lives(own) && /^GOAWAY [123]$/.test(node.end),
  },
  {
    name: 'a setting that a frame has twice',
    shows: [settings([SETTING.ENABLE_PUSH, 2], [SETTING.ENABLE_PUSH, 0])],
    connection: ({ odd, own, node }) => odd.has('twice') && /^GOAWAY [13]$/.test(own.end) && lives(node),
  },
  {
    name: 'headers of which only one side approves',
    shows: [asks(post('/', ['x', 'a\nb']))],
    connection: (at) => at.odd.has('fields') && hasReset(at),
    stream: (odd, id) => odd.of(id, 'fields'),
  },
  {
    name: 'a list of headers of about 16 KiB',
    shows: [asks(post('/', ['x', 'y'.repeat(16_300)]))],
    stream: (odd, id, own) => odd.of(id, 'large') && own === 'reset 11',
  },
  {
    name: 'a body that is not as long as its content-length',
    shows: [frame(FRAME.HEADERS, END_HEADERS, 3, post('/', ['content-length', 'five']))],
    connection: (at) => at.odd.has('length') && hasReset(at),
    stream: (odd, id, own, node) =>
      odd.of(id, 'length') && /^(reset \d+|none)$/.test(own) && /^(reset 1|none)$/.test(node),
  },
];

/** The names of the differences that explain a case: none where the two are alike, undefined where one is not explained. */
export function explained(at: Case): readonly string[] | undefined {
  const { own, node, odd } = at;
  if (own.end !== node.end) {
    const found = DIFFERENCES.find(({ connection }) => connection?.(at));
    return found === undefined ? undefined : [found.name];
  }
  if (!lives(own)) return [];
  const names: string[] = [];
  for (const id of new Set([...Object.keys(own.streams), ...Object.keys(node.streams)].map(Number))) {
    const [one, other] = [own.streams[id] ?? 'none', node.streams[id] ?? 'none'];
    if (one === other) continue;
    const found = DIFFERENCES.find(({ stream }) => stream?.(odd, id, one, other));
    if (found === undefined) return undefined;
    names.push(found.name);
  }
  return names;
}

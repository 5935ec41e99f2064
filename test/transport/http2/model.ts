/**
 * HTTP/2 for a server as RFC 9113 has it, section 5.1 above all: what must come of each frame. Where the RFC leaves a
 * choice, docs/design/http2.md says which one is ours.
 */
import { ERROR, FLAG, FRAME, SETTING } from '../../../src/transport/http2/frames.ts';
import { HpackDecoder } from '../../../src/transport/http2/hpack.ts';

const MAX_FRAME = 16_384;
const MAX_WINDOW = 2 ** 31 - 1;
const FRAME_SIZES: Readonly<Record<number, number>> = {
  [FRAME.PRIORITY]: 5,
  [FRAME.RST_STREAM]: 4,
  [FRAME.PING]: 8,
  [FRAME.WINDOW_UPDATE]: 4,
};
/** Of them a stream has none, or the connection has none. */
const OF_STREAMS: readonly number[] = [
  FRAME.DATA,
  FRAME.HEADERS,
  FRAME.PRIORITY,
  FRAME.RST_STREAM,
  FRAME.CONTINUATION,
];
const OF_CONNECTION: readonly number[] = [FRAME.SETTINGS, FRAME.PING, FRAME.GOAWAY];

export type Fields = readonly (readonly [name: string, value: string])[];

export interface ModelLimits {
  readonly streams: number;
  readonly headerBytes: number;
  readonly settings: number;
}

/** What must come of a frame. */
export interface Verdict {
  /** The connection must end with one of these errors; it must live when there is none. */
  readonly ends: Set<number>;
  /** The frame's stream must be reset with this error. */
  resets?: number;
  /** What the receiver of the frame's stream must hear. */
  readonly heard: string[];
  /** Of a header block that the frame completes. */
  fields?: Fields;
  /** Acknowledgements, by the type of their frames. */
  readonly acknowledged: number[];
}

/** A stream that is open, or half-closed. */
export interface ModelStream {
  readonly id: number;
  remoteOpen: boolean;
  localOpen: boolean;
  /** What the server may send, and the client. */
  sendWindow: number;
  receiveWindow: number;
  /** DATA of which no receiver has said that it is consumed. */
  unconsumed: number;
  received: number;
  readonly contentLength: number | undefined;
  /** Of the answer: whether it has begun, what of it has not been sent, and whether that is all. */
  answered: boolean;
  queued: number;
  ends: boolean;
}

export class Http2Model {
  readonly #limits: ModelLimits;
  readonly #hpack = new HpackDecoder();
  readonly streams = new Map<number, ModelStream>();
  /** Streams that the server has reset: what their client had sent before it knew is dropped. */
  readonly reset = new Set<number>();
  lastId = 0;
  hasSettings = false;
  /** When the server leaves it asks its client with a PING; when that has heard of it, no more streams are opened. */
  leaves: 'no' | 'asked' | 'heard' = 'no';
  over = false;
  sendWindow = 65_535;
  receiveWindow = 65_535;
  unconsumed = 0;
  #initialWindow = 65_535;
  #block: { readonly id: number; readonly flags: number; readonly parts: Buffer[] } | undefined;

  constructor(limits: ModelLimits) {
    this.#limits = limits;
  }

  frame(whole: Buffer): Verdict {
    const [type = 0, flags = 0] = [whole[3], whole[4]];
    const id = whole.readUInt32BE(5) & MAX_WINDOW;
    const payload = whole.subarray(9);
    const verdict: Verdict = { ends: new Set(), heard: [], acknowledged: [] };
    this.#checkFrame(type, flags, id, payload, verdict.ends);
    if (payload.length <= MAX_FRAME) this.#apply(type, flags, id, payload, verdict);
    if (verdict.ends.size > 0) this.over = true;
    if (verdict.resets !== undefined) this.wasReset(id);
    return verdict;
  }

  /** The server has reset it. */
  wasReset(id: number): void {
    this.reset.add(id);
    this.close(id);
  }

  /** Neither side sends any more; the connection's window does not wait for it. */
  close(id: number): void {
    this.unconsumed -= this.streams.get(id)?.unconsumed ?? 0;
    this.streams.delete(id);
  }

  /** Sections 4.1, 4.2, 4.3 and 6: what can be seen of a frame without its stream. */
  #checkFrame(type: number, flags: number, id: number, payload: Buffer, ends: Set<number>): void {
    const { length } = payload;
    if (length > MAX_FRAME) ends.add(ERROR.FRAME_SIZE_ERROR);
    if (!this.hasSettings && type !== FRAME.SETTINGS) ends.add(ERROR.PROTOCOL_ERROR);
    const goesOn = this.#block === undefined ? undefined : this.#block.id;
    if (goesOn === undefined ? type === FRAME.CONTINUATION : type !== FRAME.CONTINUATION || id !== goesOn)
      ends.add(ERROR.PROTOCOL_ERROR);
    if (OF_STREAMS.includes(type) && id === 0) ends.add(ERROR.PROTOCOL_ERROR);
    if (OF_CONNECTION.includes(type) && id !== 0) ends.add(ERROR.PROTOCOL_ERROR);
    if (type === FRAME.PUSH_PROMISE) ends.add(ERROR.PROTOCOL_ERROR);
    if (length !== (FRAME_SIZES[type] ?? length)) ends.add(ERROR.FRAME_SIZE_ERROR);
    if (type === FRAME.GOAWAY && length < 8) ends.add(ERROR.FRAME_SIZE_ERROR);
    if (type === FRAME.DATA || type === FRAME.HEADERS) checkPadding(type, flags, id, payload, ends);
    // A dependency on itself: an error by RFC 7540, which RFC 9113 no longer names.
    if (type === FRAME.PRIORITY && length === 5 && dependsOn(payload) === id) ends.add(ERROR.PROTOCOL_ERROR);
  }

  #apply(type: number, flags: number, id: number, payload: Buffer, verdict: Verdict) {
    switch (type) {
      case FRAME.DATA:
        return this.#data(flags, id, payload, verdict);
      case FRAME.HEADERS:
      case FRAME.CONTINUATION:
        return this.#fragment(type, flags, id, payload, verdict);
      case FRAME.RST_STREAM:
        if (id !== 0 && this.#isIdle(id)) verdict.ends.add(ERROR.PROTOCOL_ERROR);
        if (verdict.ends.size > 0 || !this.streams.has(id)) return;
        verdict.heard.push('closed');
        return this.close(id);
      case FRAME.SETTINGS:
        return this.#settings(flags, payload, verdict);
      case FRAME.PING:
        if ((flags & FLAG.ACK) === 0) verdict.acknowledged.push(FRAME.PING);
        else if (this.leaves === 'asked' && verdict.ends.size === 0) {
          this.leaves = 'heard';
          verdict.acknowledged.push(FRAME.GOAWAY);
        }
        return;
      case FRAME.WINDOW_UPDATE:
        if (payload.length === 4) this.#window(id, payload.readUInt32BE(0) & MAX_WINDOW, verdict);
    }
  }

  /** Section 5.1.1: a server that pushes nothing has opened no even one. */
  #isIdle(id: number): boolean {
    return id % 2 === 0 || (id > this.lastId && this.leaves !== 'heard');
  }

  // Section 6.1.
  #data(flags: number, id: number, payload: Buffer, verdict: Verdict) {
    const { ends, heard } = verdict;
    const { length } = payload;
    if (id !== 0 && this.#isIdle(id)) ends.add(ERROR.PROTOCOL_ERROR);
    const stream = this.streams.get(id);
    const dropped = this.reset.has(id) || (this.leaves === 'heard' && id > this.lastId);
    if (id !== 0 && !this.#isIdle(id) && !dropped && !stream?.remoteOpen) ends.add(ERROR.STREAM_CLOSED);
    if (length > this.receiveWindow) ends.add(ERROR.FLOW_CONTROL_ERROR);
    if (ends.size > 0) return;
    this.receiveWindow -= length;
    if (stream === undefined) return;
    if (length > stream.receiveWindow) {
      verdict.resets = offended(heard, ERROR.FLOW_CONTROL_ERROR);
      return;
    }
    const part = length - (flags & FLAG.PADDED ? 1 + (payload[0] ?? 0) : 0);
    stream.receiveWindow -= length;
    stream.received += part;
    stream.unconsumed += part;
    this.unconsumed += part;
    heard.push(`data ${part}`);
    const { contentLength: said } = stream;
    if ((flags & FLAG.END_STREAM) !== 0) this.#ended(stream, verdict);
    else if (said !== undefined && stream.received > said)
      verdict.resets = offended(heard, ERROR.PROTOCOL_ERROR);
  }

  /** The client has said all. */
  #ended(stream: ModelStream, verdict: Verdict): void {
    stream.remoteOpen = false;
    this.unconsumed -= stream.unconsumed;
    stream.unconsumed = 0;
    const { contentLength: said } = stream;
    if (said !== undefined && said !== stream.received)
      verdict.resets = offended(verdict.heard, ERROR.PROTOCOL_ERROR);
    else verdict.heard.push('end');
  }

  // Sections 4.3, 6.2 and 6.10.
  #fragment(type: number, flags: number, id: number, payload: Buffer, verdict: Verdict) {
    if (verdict.ends.size > 0) return;
    const isFirst = type === FRAME.HEADERS;
    const block = isFirst ? { id, flags, parts: [] as Buffer[] } : this.#block;
    if (block === undefined) return;
    block.parts.push(isFirst ? withoutExtras(flags, payload) : payload);
    this.#block = block;
    const bytes = Buffer.concat(block.parts);
    if (!isFirst && bytes.length > this.#limits.headerBytes) verdict.ends.add(ERROR.ENHANCE_YOUR_CALM);
    if ((flags & FLAG.END_HEADERS) === 0) return;
    this.#block = undefined;
    const fields: [string, string][] = [];
    try {
      this.#hpack.decode(bytes, ({ name, value }) => fields.push([name, value]));
    } catch {
      verdict.ends.add(ERROR.COMPRESSION_ERROR);
      return;
    }
    verdict.fields = fields;
    this.#headers(id, (block.flags & FLAG.END_STREAM) !== 0, fields, verdict);
  }

  #headers(id: number, isLast: boolean, fields: Fields, verdict: Verdict) {
    const stream = this.streams.get(id);
    if (stream !== undefined) return this.#trailers(stream, isLast, fields, verdict);
    if (id % 2 === 0) return void verdict.ends.add(ERROR.PROTOCOL_ERROR);
    if (id <= this.lastId) {
      // Section 5.1.1 allows either.
      if (!this.reset.has(id)) verdict.ends.add(ERROR.STREAM_CLOSED).add(ERROR.PROTOCOL_ERROR);
      return;
    }
    if (this.leaves === 'heard') return;
    this.lastId = id;
    const isLarge =
      fields.reduce((sum, [n, v]) => sum + n.length + v.length + 32, 0) > this.#limits.headerBytes;
    if (this.streams.size >= this.#limits.streams) verdict.resets = ERROR.REFUSED_STREAM;
    else if (isLarge) verdict.resets = ERROR.ENHANCE_YOUR_CALM;
    else if (!isRequest(fields)) verdict.resets = ERROR.PROTOCOL_ERROR;
    if (verdict.resets !== undefined) return;
    const length = fields.find(([name]) => name === 'content-length')?.[1];
    const opened: ModelStream = {
      ...{ id, remoteOpen: true, localOpen: true, sendWindow: this.#initialWindow, receiveWindow: 65_535 },
      ...{ unconsumed: 0, received: 0, answered: false, queued: 0, ends: false },
      contentLength: length === undefined ? undefined : Number(length),
    };
    this.streams.set(id, opened);
    verdict.heard.push(`begin ${JSON.stringify([...joined(fields)])}`);
    if (isLast) this.#ended(opened, verdict);
  }

  // Section 8.1.
  #trailers(stream: ModelStream, isLast: boolean, fields: Fields, verdict: Verdict) {
    if (!stream.remoteOpen) return void verdict.ends.add(ERROR.STREAM_CLOSED);
    if (isLast && isWellFormed(fields) && !fields.some(([name]) => name.startsWith(':')))
      this.#ended(stream, verdict);
    else verdict.resets = offended(verdict.heard, ERROR.PROTOCOL_ERROR);
  }

  // Section 6.5.
  #settings(flags: number, payload: Buffer, { ends, acknowledged }: Verdict) {
    const isAck = (flags & FLAG.ACK) !== 0;
    if (isAck ? payload.length > 0 : payload.length % 6 !== 0) ends.add(ERROR.FRAME_SIZE_ERROR);
    if (isAck || ends.size > 0) return;
    if (payload.length / 6 > this.#limits.settings) return void ends.add(ERROR.ENHANCE_YOUR_CALM);
    let window = this.#initialWindow;
    for (let at = 0; at < payload.length; at += 6) {
      const [name, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
      if (name === SETTING.ENABLE_PUSH && value > 1) ends.add(ERROR.PROTOCOL_ERROR);
      if (name === SETTING.MAX_FRAME_SIZE && (value < 2 ** 14 || value >= 2 ** 24))
        ends.add(ERROR.PROTOCOL_ERROR);
      if (name === SETTING.INITIAL_WINDOW_SIZE && value > MAX_WINDOW) ends.add(ERROR.FLOW_CONTROL_ERROR);
      if (name === SETTING.INITIAL_WINDOW_SIZE) window = value;
    }
    if (ends.size > 0) return;
    this.hasSettings = true;
    acknowledged.push(FRAME.SETTINGS);
    for (const stream of this.streams.values()) {
      stream.sendWindow += window - this.#initialWindow;
      if (stream.sendWindow > MAX_WINDOW) ends.add(ERROR.FLOW_CONTROL_ERROR);
    }
    this.#initialWindow = window;
  }

  // Section 6.9.
  #window(id: number, more: number, verdict: Verdict) {
    const { ends, heard } = verdict;
    if (id !== 0 && this.#isIdle(id)) ends.add(ERROR.PROTOCOL_ERROR);
    if (id === 0 && more === 0) ends.add(ERROR.PROTOCOL_ERROR);
    if (id === 0 && this.sendWindow + more > MAX_WINDOW) ends.add(ERROR.FLOW_CONTROL_ERROR);
    if (ends.size > 0) return;
    if (id === 0) this.sendWindow += more;
    const stream = this.streams.get(id);
    if (stream === undefined) return;
    if (more === 0) verdict.resets = offended(heard, ERROR.PROTOCOL_ERROR);
    else if (stream.sendWindow + more > MAX_WINDOW)
      verdict.resets = offended(heard, ERROR.FLOW_CONTROL_ERROR);
    else stream.sendWindow += more;
  }
}

/** A stream is reset for what its client did: its receiver hears of it. */
function offended(heard: string[], code: number): number {
  heard.push('closed');
  return code;
}

const dependsOn = (bytes: Buffer) => bytes.readUInt32BE(0) & MAX_WINDOW;

/** Padding, and the dependency of HEADERS, are within the frame. */
function checkPadding(type: number, flags: number, id: number, payload: Buffer, ends: Set<number>): void {
  const isPadded = (flags & FLAG.PADDED) !== 0;
  if (isPadded && payload.length === 0) ends.add(ERROR.FRAME_SIZE_ERROR);
  if (isPadded && payload.length > 0 && (payload[0] ?? 0) >= payload.length) ends.add(ERROR.PROTOCOL_ERROR);
  if (type !== FRAME.HEADERS || (flags & FLAG.PRIORITY) === 0 || ends.size > 0) return;
  const rest = isPadded ? payload.subarray(1, payload.length - (payload[0] ?? 0)) : payload;
  if (rest.length < 5) ends.add(ERROR.FRAME_SIZE_ERROR);
  else if (dependsOn(rest) === id) ends.add(ERROR.PROTOCOL_ERROR);
}

function withoutExtras(flags: number, payload: Buffer): Buffer {
  const rest =
    (flags & FLAG.PADDED) === 0 ? payload : payload.subarray(1, payload.length - (payload[0] ?? 0));
  return (flags & FLAG.PRIORITY) === 0 ? rest : rest.subarray(5);
}

const CONNECTION_FIELDS = ['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade'];
const PSEUDO = [':method', ':scheme', ':path', ':authority'];

/** Sections 8.2 and 8.3. */
function isWellFormed(fields: Fields): boolean {
  const firstOther = fields.findIndex(([name]) => !name.startsWith(':'));
  return fields.every(([name, value], at) => {
    if (/[\0\r\n]/.test(value)) return false;
    if (name.startsWith(':'))
      return (
        PSEUDO.includes(name) &&
        (firstOther === -1 || at < firstOther) &&
        fields.findIndex(([other]) => other === name) === at
      );
    return (
      /^[!#$%&'*+\-.^_`|~\da-z]+$/.test(name) &&
      !CONNECTION_FIELDS.includes(name) &&
      (name !== 'te' || value === 'trailers')
    );
  });
}

/** Values of one name are one. */
function joined(fields: Fields): Map<string, string> {
  const all = new Map<string, string>();
  for (const [name, value] of fields) {
    const before = all.get(name);
    all.set(name, before === undefined ? value : `${before},${value}`);
  }
  return all;
}

function isRequest(fields: Fields): boolean {
  const has = (name: string) => fields.some(([other, value]) => other === name && value !== '');
  return isWellFormed(fields) && has(':method') && has(':scheme') && has(':path');
}

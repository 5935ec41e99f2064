import type { Socket } from 'node:net';
import {
  ConnectionError,
  DEFAULT_WINDOW,
  ERROR,
  FLAG,
  FRAME,
  FRAME_HEAD,
  MAX_FRAME,
  MAX_WINDOW,
  PREFACE,
  SETTING,
  writeHead,
} from './frames.ts';
import { HpackDecoder, HpackError } from './hpack.ts';
import { Output } from './output.ts';
import { RequestHeaders } from './request-headers.ts';
import { type Answer, type Receiver, ServerStream, type StreamConnection } from './stream.ts';

export interface ConnectionLimits {
  readonly streamsPerConnection: number;
  readonly headerBytes: number;
}

/** Bytes that may be on their way in, over all streams. */
const RECEIVE_WINDOW = 1 << 20;
/** Unsent bytes beyond which a connection is not read any more, until its peer reads. */
const MAX_UNSENT = 1 << 20;
/** Streams reset by this side whose frames may still be on their way. */
const MAX_RESET = 200;
/** Streams that a peer may reset beyond those it lets finish: more is an attack. */
const MAX_ABANDONED = 1_000;
/** Frames that cost work and bring nothing: empty DATA, CONTINUATION, PRIORITY, unknown ones; forgiven by each request. */
const MAX_IDLE_FRAMES = 1_000;
/** The longest block that is remembered as the same headers again. */
const MAX_MEMO = 512;

/** One connection of HTTP/2, the server's side, as RFC 9113 has it: no push, no upgrade, no priorities. */
export class Http2Connection implements StreamConnection {
  readonly #socket: Socket;
  readonly #output: Output;
  readonly #peerIp: string;
  readonly #limits: ConnectionLimits;
  readonly #begin: (stream: ServerStream) => Receiver;
  readonly #hpack = new HpackDecoder();
  readonly #streams = new Map<number, ServerStream>();
  readonly #blocked = new Set<ServerStream>();
  /** Ids of streams that this side reset, oldest first. */
  readonly #reset = new Set<number>();
  #rest: Buffer | undefined;
  #prefaced = false;
  #settled = false;
  #lastId = 0;
  sendWindow = DEFAULT_WINDOW;
  #receiveWindow = RECEIVE_WINDOW;
  #uncredited = 0;
  #streamSendWindow = DEFAULT_WINDOW;
  /** A header block that goes on in CONTINUATION frames. */
  #block: { readonly id: number; readonly endStream: boolean; parts: Buffer[]; bytes: number } | undefined;
  #memo: { readonly block: Buffer; readonly version: number; readonly headers: RequestHeaders } | undefined;
  #abandoned = 0;
  #idleFrames = 0;
  #leaving = false;
  #ended = false;
  readonly #pongs: (() => void)[] = [];

  constructor(
    socket: Socket,
    peerIp: string,
    limits: ConnectionLimits,
    begin: (stream: ServerStream) => Receiver,
  ) {
    this.#socket = socket;
    this.#peerIp = peerIp;
    this.#limits = limits;
    this.#begin = begin;
    this.#output = new Output(socket);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.#unblock());
    socket.on('end', () => this.destroy());
    socket.on('error', () => this.destroy());
    socket.on('close', () => this.destroy());
    this.#sendSettings();
  }

  /** Whether the peer has spoken HTTP/2. */
  get settled(): boolean {
    return this.#settled;
  }

  get congested(): boolean {
    return this.#socket.writableLength > MAX_UNSENT;
  }

  /** Takes no new requests; ends when those under way are answered. */
  leave() {
    if (this.#leaving || this.#ended) return;
    // What is on its way already is still served: the last word comes when the peer has heard the first.
    this.#sendGoAway(MAX_WINDOW, ERROR.NO_ERROR);
    this.#ping(() => {
      this.#leaving = true;
      this.#sendGoAway(this.#lastId, ERROR.NO_ERROR);
      this.#endIfDone();
    });
  }

  /** Ends a connection whose peer does not answer in time. */
  keepAlive(timeoutMs: number) {
    this.#idleFrames = 0;
    const silent = setTimeout(() => this.destroy(), timeoutMs);
    this.#ping(() => clearTimeout(silent));
  }

  #ping(answered: () => void) {
    this.#pongs.push(answered);
    this.write(FRAME.PING, 0, 0, Buffer.alloc(8));
  }

  destroy() {
    if (this.#ended) return;
    this.#ended = true;
    for (const answered of this.#pongs.splice(0)) answered();
    this.#socket.destroy();
    for (const stream of this.#streams.values()) this.#lose(stream);
    this.#streams.clear();
    this.#blocked.clear();
  }

  // What a stream asks for.

  write(type: number, flags: number, id: number, payload: Uint8Array) {
    if (payload.length > MAX_FRAME && type === FRAME.HEADERS) return this.#writeLong(flags, id, payload);
    const at = this.#output.reserve(FRAME_HEAD + payload.length);
    this.#output.buffer.set(payload, writeHead(this.#output.buffer, at, payload.length, type, flags, id));
  }

  writeAnswer(id: number, { headers, body, trailers }: Answer) {
    const at = this.#output.reserve(3 * FRAME_HEAD + headers.length + body.length + trailers.length);
    const to = this.#output.buffer;
    let end = writeHead(to, at, headers.length, FRAME.HEADERS, FLAG.END_HEADERS, id);
    to.set(headers, end);
    end = writeHead(to, end + headers.length, body.length, FRAME.DATA, 0, id);
    to.set(body, end);
    const last = FLAG.END_HEADERS | FLAG.END_STREAM;
    end = writeHead(to, end + body.length, trailers.length, FRAME.HEADERS, last, id);
    to.set(trailers, end);
  }

  blocked(stream: ServerStream) {
    this.#blocked.add(stream);
  }

  finished(stream: ServerStream) {
    if (this.#abandoned > 0) this.#abandoned--;
    // What the client has not sent yet is not wanted any more.
    if (stream.remoteOpen) this.reset(stream, ERROR.NO_ERROR);
    else this.#forget(stream);
  }

  reset(stream: ServerStream, code: number) {
    if (this.#streams.get(stream.id) !== stream) return;
    this.#refuse(stream.id, code);
    this.#lose(stream);
    this.#forget(stream);
  }

  // Reading.

  #read(chunk: Buffer) {
    if (this.#ended) return;
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = undefined;
    try {
      const at = this.#frames(bytes);
      if (at < bytes.length && !this.#ended) this.#rest = bytes.subarray(at);
      if (this.congested) this.#socket.pause();
    } catch (error) {
      if (error instanceof ConnectionError) this.#fail(error.code);
      else if (error instanceof HpackError) this.#fail(ERROR.COMPRESSION_ERROR);
      else throw error;
    }
  }

  /** Handles the frames that are whole, and answers where they end. */
  #frames(bytes: Buffer): number {
    let at = 0;
    if (!this.#prefaced) {
      const head = bytes.subarray(0, PREFACE.length);
      if (!head.equals(PREFACE.subarray(0, head.length))) throw protocolError('no preface');
      if (head.length < PREFACE.length) return 0;
      this.#prefaced = true;
      at = PREFACE.length;
    }
    while (bytes.length - at >= FRAME_HEAD && !this.#ended) {
      const length = bytes.readUIntBE(at, 3);
      if (length > MAX_FRAME) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'a frame too long');
      const end = at + FRAME_HEAD + length;
      if (bytes.length < end) break;
      const id = bytes.readUInt32BE(at + 5) & 0x7fff_ffff;
      this.#frame(bytes[at + 3] ?? 0, bytes[at + 4] ?? 0, id, bytes.subarray(at + FRAME_HEAD, end));
      at = end;
    }
    return at;
  }

  #frame(type: number, flags: number, id: number, payload: Buffer) {
    if (this.#block !== undefined && (type !== FRAME.CONTINUATION || id !== this.#block.id))
      throw protocolError('a header block that does not go on');
    if (!this.#settled && type !== FRAME.SETTINGS) throw protocolError('settings come first');
    switch (type) {
      case FRAME.DATA:
        return this.#onData(flags, id, payload);
      case FRAME.HEADERS:
        return this.#onHeaders(flags, id, payload);
      case FRAME.CONTINUATION:
        return this.#onContinuation(flags, payload);
      case FRAME.SETTINGS:
        return this.#onSettings(flags, id, payload);
      case FRAME.PING:
        return this.#onPing(flags, id, payload);
      case FRAME.RST_STREAM:
        return this.#onReset(id, payload);
      case FRAME.WINDOW_UPDATE:
        return this.#onWindowUpdate(id, payload);
      case FRAME.PRIORITY:
        return this.#onPriority(id, payload);
      case FRAME.GOAWAY:
        if (id !== 0) throw protocolError('GOAWAY on a stream');
        return;
      case FRAME.PUSH_PROMISE:
        throw protocolError('a client cannot push');
      default:
        this.#countIdle();
    }
  }

  #onHeaders(flags: number, id: number, payload: Buffer) {
    if (id === 0) throw protocolError('HEADERS without a stream');
    let block = unpadded(flags, payload);
    if ((flags & FLAG.PRIORITY) !== 0) {
      if (block.length < 5) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'a priority cut off');
      if ((block.readUInt32BE(0) & 0x7fff_ffff) === id) throw protocolError('a stream depends on itself');
      block = block.subarray(5);
    }
    const endStream = (flags & FLAG.END_STREAM) !== 0;
    if ((flags & FLAG.END_HEADERS) !== 0) this.#onBlock(id, endStream, block);
    else this.#block = { id, endStream, parts: [block], bytes: block.length };
  }

  #onContinuation(flags: number, payload: Buffer) {
    const block = this.#block;
    if (block === undefined) throw protocolError('CONTINUATION of nothing');
    block.parts.push(payload);
    block.bytes += payload.length;
    this.#countIdle();
    if (block.bytes > this.#limits.headerBytes) throw calm('headers without end');
    if ((flags & FLAG.END_HEADERS) === 0) return;
    this.#block = undefined;
    this.#onBlock(block.id, block.endStream, Buffer.concat(block.parts, block.bytes));
  }

  #onBlock(id: number, endStream: boolean, block: Buffer) {
    // Read in any case: the next block's meaning depends on it.
    const headers = this.#headersOf(block);
    const stream = this.#streams.get(id);
    if (stream !== undefined) return this.#onTrailers(stream, endStream, headers);
    if (id % 2 === 0) throw protocolError('an even stream');
    if (id <= this.#lastId) {
      if (this.#reset.has(id)) return;
      throw new ConnectionError(ERROR.STREAM_CLOSED, 'a stream that is over');
    }
    if (this.#leaving) return;
    this.#lastId = id;
    this.#idleFrames = 0;
    if (this.#streams.size >= this.#limits.streamsPerConnection) this.#refuse(id, ERROR.REFUSED_STREAM);
    else if (!headers.wellFormed) this.#refuse(id, ERROR.PROTOCOL_ERROR);
    else if (headers.bytes > this.#limits.headerBytes) this.#refuse(id, ERROR.ENHANCE_YOUR_CALM);
    else this.#open(id, endStream, headers);
  }

  #open(id: number, endStream: boolean, headers: RequestHeaders) {
    const windows = { send: this.#streamSendWindow, receive: DEFAULT_WINDOW };
    const stream = new ServerStream(id, headers, this.#peerIp, this, windows);
    this.#streams.set(id, stream);
    stream.receiver = this.#begin(stream);
    if (endStream) this.#endOfBody(stream);
  }

  #onTrailers(stream: ServerStream, endStream: boolean, headers: RequestHeaders) {
    if (!stream.remoteOpen) throw new ConnectionError(ERROR.STREAM_CLOSED, 'headers after the end');
    if (endStream && headers.wellFormedTrailers) this.#endOfBody(stream);
    else this.reset(stream, ERROR.PROTOCOL_ERROR);
  }

  /** The same bytes mean the same headers as long as the table has not changed: most calls of a client are alike. */
  #headersOf(block: Buffer): RequestHeaders {
    const memo = this.#memo;
    if (memo !== undefined && memo.version === this.#hpack.version && memo.block.equals(block))
      return memo.headers;
    const headers = new RequestHeaders();
    this.#hpack.decode(block, (name, value) => headers.add(name, value));
    if (block.length <= MAX_MEMO)
      this.#memo = { block: Buffer.from(block), version: this.#hpack.version, headers };
    return headers;
  }

  #onData(flags: number, id: number, payload: Buffer) {
    this.#receiveWindow -= payload.length;
    if (this.#receiveWindow < 0) throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'more than the window');
    this.#credit(payload.length);
    const part = unpadded(flags, payload);
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#onLateData(id);
    if (!stream.remoteOpen) throw new ConnectionError(ERROR.STREAM_CLOSED, 'data after the end');
    stream.receiveWindow -= payload.length;
    if (stream.receiveWindow < 0) return this.reset(stream, ERROR.FLOW_CONTROL_ERROR);
    if (part.length === 0) this.#countIdle();
    stream.received += part.length;
    stream.receiver?.data(part);
    if ((flags & FLAG.END_STREAM) !== 0) this.#endOfBody(stream);
    else this.#creditStream(stream, payload.length);
  }

  #onLateData(id: number) {
    if (id === 0 || id > this.#lastId) throw protocolError('data of no stream');
    if (!this.#reset.has(id)) throw new ConnectionError(ERROR.STREAM_CLOSED, 'data after the end');
  }

  #endOfBody(stream: ServerStream) {
    if (this.#streams.get(stream.id) !== stream) return;
    stream.remoteOpen = false;
    const said = stream.headers.contentLength;
    if (said !== undefined && said !== stream.received) this.reset(stream, ERROR.PROTOCOL_ERROR);
    else stream.receiver?.end();
  }

  #onSettings(flags: number, id: number, payload: Buffer) {
    if (id !== 0) throw protocolError('SETTINGS of a stream');
    const ack = (flags & FLAG.ACK) !== 0;
    if (ack ? payload.length > 0 : payload.length % 6 !== 0)
      throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'settings cut off');
    if (ack) return;
    this.#settled = true;
    this.#countIdle();
    for (let at = 0; at < payload.length; at += 6)
      this.#onSetting(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
    this.write(FRAME.SETTINGS, FLAG.ACK, 0, Buffer.alloc(0));
  }

  #onSetting(setting: number, value: number) {
    if (setting === SETTING.ENABLE_PUSH && value > 1) throw protocolError('ENABLE_PUSH is 0 or 1');
    if (setting === SETTING.MAX_FRAME_SIZE && (value < MAX_FRAME || value > 2 ** 24 - 1))
      throw protocolError('MAX_FRAME_SIZE out of bounds');
    if (setting !== SETTING.INITIAL_WINDOW_SIZE) return;
    if (value > MAX_WINDOW) throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'a window too large');
    const more = value - this.#streamSendWindow;
    this.#streamSendWindow = value;
    for (const stream of this.#streams.values()) {
      stream.sendWindow += more;
      if (stream.sendWindow > MAX_WINDOW)
        throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'a window too large');
    }
    this.#unblock();
  }

  #onPing(flags: number, id: number, payload: Buffer) {
    if (id !== 0) throw protocolError('PING of a stream');
    if (payload.length !== 8) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'PING of 8 bytes');
    if ((flags & FLAG.ACK) === 0) {
      this.#countIdle();
      this.write(FRAME.PING, FLAG.ACK, 0, payload);
    } else this.#pongs.shift()?.();
  }

  #onReset(id: number, payload: Buffer) {
    if (payload.length !== 4) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'RST_STREAM of 4 bytes');
    if (id === 0 || id > this.#lastId) throw protocolError('RST_STREAM of no stream');
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#countIdle();
    if (++this.#abandoned > MAX_ABANDONED) throw calm('requests made to be reset');
    this.#lose(stream);
    this.#forget(stream);
  }

  #onWindowUpdate(id: number, payload: Buffer) {
    if (payload.length !== 4) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'WINDOW_UPDATE of 4 bytes');
    const more = payload.readUInt32BE(0) & 0x7fff_ffff;
    if (id === 0) {
      if (more === 0) throw protocolError('a window of nothing');
      this.sendWindow += more;
      if (this.sendWindow > MAX_WINDOW)
        throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'a window too large');
      return this.#unblock();
    }
    if (id > this.#lastId) throw protocolError('a window of no stream');
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#countIdle();
    if (more === 0) return this.reset(stream, ERROR.PROTOCOL_ERROR);
    stream.sendWindow += more;
    if (stream.sendWindow > MAX_WINDOW) return this.reset(stream, ERROR.FLOW_CONTROL_ERROR);
    stream.pump();
  }

  #onPriority(id: number, payload: Buffer) {
    if (id === 0) throw protocolError('PRIORITY of no stream');
    if (payload.length !== 5) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'PRIORITY of 5 bytes');
    if ((payload.readUInt32BE(0) & 0x7fff_ffff) === id) throw protocolError('a stream depends on itself');
    this.#countIdle();
  }

  // Windows, ends and failures.

  #credit(bytes: number) {
    this.#uncredited += bytes;
    if (this.#uncredited < RECEIVE_WINDOW / 2) return;
    this.#sendCredit(0, this.#uncredited);
    this.#receiveWindow += this.#uncredited;
    this.#uncredited = 0;
  }

  #creditStream(stream: ServerStream, bytes: number) {
    stream.uncredited += bytes;
    if (stream.uncredited < DEFAULT_WINDOW / 2 || this.#streams.get(stream.id) !== stream) return;
    this.#sendCredit(stream.id, stream.uncredited);
    stream.receiveWindow += stream.uncredited;
    stream.uncredited = 0;
  }

  #unblock() {
    const blocked = [...this.#blocked];
    this.#blocked.clear();
    for (const stream of blocked) stream.pump();
    if (!this.congested && this.#socket.isPaused()) this.#socket.resume();
  }

  #refuse(id: number, code: number) {
    this.#reset.add(id);
    if (this.#reset.size > MAX_RESET) for (const oldest of this.#reset) if (this.#reset.delete(oldest)) break;
    this.write(FRAME.RST_STREAM, 0, id, uint32(code));
  }

  #lose(stream: ServerStream) {
    const over = !stream.localOpen && !stream.remoteOpen;
    stream.close();
    if (!over) stream.receiver?.closed();
  }

  #forget(stream: ServerStream) {
    this.#streams.delete(stream.id);
    this.#blocked.delete(stream);
    this.#endIfDone();
  }

  #endIfDone() {
    if (!this.#leaving || this.#streams.size > 0 || this.#ended) return;
    this.#output.flush();
    this.#socket.end();
  }

  #countIdle() {
    if (++this.#idleFrames > MAX_IDLE_FRAMES) throw calm('frames that bring nothing');
  }

  #fail(code: number) {
    this.#sendGoAway(this.#lastId, code);
    this.#output.flush();
    this.#socket.end();
    this.destroySoon();
  }

  /** After what was written has left. */
  destroySoon() {
    this.#socket.destroySoon();
    for (const stream of this.#streams.values()) this.#lose(stream);
    this.#streams.clear();
    this.#ended = true;
  }

  #sendSettings() {
    const settings = [
      [SETTING.MAX_CONCURRENT_STREAMS, this.#limits.streamsPerConnection],
      [SETTING.MAX_HEADER_LIST_SIZE, this.#limits.headerBytes],
    ] as const;
    const payload = Buffer.alloc(6 * settings.length);
    for (const [i, [setting, value]] of settings.entries()) {
      payload.writeUInt16BE(setting, 6 * i);
      payload.writeUInt32BE(value, 6 * i + 2);
    }
    this.write(FRAME.SETTINGS, 0, 0, payload);
    this.#sendCredit(0, RECEIVE_WINDOW - DEFAULT_WINDOW);
  }

  #sendCredit(id: number, bytes: number) {
    this.write(FRAME.WINDOW_UPDATE, 0, id, uint32(bytes));
  }

  #sendGoAway(lastId: number, code: number) {
    this.write(FRAME.GOAWAY, 0, 0, Buffer.concat([uint32(lastId), uint32(code)]));
  }

  /** A block longer than a frame. */
  #writeLong(flags: number, id: number, payload: Uint8Array) {
    this.write(FRAME.HEADERS, flags & ~FLAG.END_HEADERS, id, payload.subarray(0, MAX_FRAME));
    for (let at = MAX_FRAME; at < payload.length; at += MAX_FRAME) {
      const last = at + MAX_FRAME >= payload.length;
      this.write(FRAME.CONTINUATION, last ? FLAG.END_HEADERS : 0, id, payload.subarray(at, at + MAX_FRAME));
    }
  }
}

function unpadded(flags: number, payload: Buffer): Buffer {
  if ((flags & FLAG.PADDED) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined || padding >= payload.length) throw protocolError('more padding than frame');
  return payload.subarray(1, payload.length - padding);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function protocolError(text: string): ConnectionError {
  return new ConnectionError(ERROR.PROTOCOL_ERROR, text);
}

function calm(text: string): ConnectionError {
  return new ConnectionError(ERROR.ENHANCE_YOUR_CALM, text);
}

import type { Socket } from 'node:net';
import { Conduct } from './conduct.ts';
import {
  ConnectionError,
  DEFAULT_WINDOW,
  ERROR,
  FLAG,
  FRAME,
  FrameReader,
  MAX_WINDOW,
  protocolError,
  SETTING,
} from './frames.ts';
import { type HeaderBlock, HeaderReader } from './header-reader.ts';
import { HpackError } from './hpack.ts';
import { type Begun, Lateness } from './lateness.ts';
import { Output } from './output.ts';
import { checkPriority, incrementOf, settingsOf, settingsPayload, uint32, unpadded } from './payloads.ts';
import { ReceiveWindow } from './receive-window.ts';
import type { RequestHeaders } from './request-headers.ts';
import { Http2Stream, type StreamConnection } from './stream.ts';
import type { Answer, ConnectionLimits, Receiver, ServerConnection, ServerStream } from './transport.ts';

/** Bytes that may be on their way in, over all streams. */
const RECEIVE_WINDOW = 1 << 20;
/** Unsent bytes beyond which a connection is not read any more, until its peer reads. */
const MAX_UNSENT = 1 << 20;
/** Streams reset by this side whose frames may still be on their way. */
const MAX_RESET = 200;
/** One connection of HTTP/2, the server's side, as RFC 9113 has it: no push, no upgrade, no priorities. */
export class Http2Connection implements ServerConnection, StreamConnection {
  readonly #socket: Socket;
  readonly #output: Output;
  readonly #peerIp: string;
  readonly #limits: ConnectionLimits;
  readonly #begin: (stream: ServerStream) => Receiver;
  readonly #headers: HeaderReader;
  readonly #streams = new Map<number, Http2Stream>();
  readonly #blocked = new Set<Http2Stream>();
  /** Ids of streams that this side reset, oldest first. */
  readonly #reset = new Set<number>();
  readonly #frames = new FrameReader((type, flags, id, payload) => this.#frame(type, flags, id, payload));
  #receivedSettings = false;
  #lastId = 0;
  sendWindow = DEFAULT_WINDOW;
  readonly #receiveWindow = new ReceiveWindow(RECEIVE_WINDOW);
  #streamSendWindow = DEFAULT_WINDOW;
  readonly #conduct = new Conduct();
  readonly #lateness: Lateness;
  #shuttingDown = false;
  #ended = false;
  readonly #pongs: (() => void)[] = [];

  constructor(
    socket: Socket,
    peerIp: string,
    limits: ConnectionLimits,
    begin: (stream: ServerStream) => Receiver,
    now: number,
  ) {
    this.#lateness = new Lateness(limits, now);
    this.#socket = socket;
    this.#peerIp = peerIp;
    this.#limits = limits;
    this.#headers = new HeaderReader(limits.headerBytes);
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
  get receivedSettings(): boolean {
    return this.#receivedSettings;
  }

  get congested(): boolean {
    return this.#socket.writableLength > MAX_UNSENT;
  }

  /** Asks the peer to have no more streams at once than these; more are taken up to the first limit. */
  limitStreams(streams: number) {
    if (!this.#ended)
      this.write(FRAME.SETTINGS, 0, 0, settingsPayload([[SETTING.MAX_CONCURRENT_STREAMS, streams]]));
  }

  /** Takes no new requests; ends when those under way are answered. */
  shutDownGracefully() {
    if (this.#shuttingDown || this.#ended) return;
    // What is on its way already is still served: the last word comes when the peer has heard the first.
    this.#output.goAway(MAX_WINDOW, ERROR.NO_ERROR);
    this.#ping(() => {
      this.#shuttingDown = true;
      this.#output.goAway(this.#lastId, ERROR.NO_ERROR);
      this.#endIfDone();
    });
  }

  /** Time has passed: ends a connection whose peer is late with anything that it has begun, or does not answer. */
  tick(now: number) {
    if (this.#ended) return;
    this.#conduct.tick();
    const lateness = this.#lateness;
    if (lateness.isOverdue(this.#begun, now)) this.#fail(ERROR.ENHANCE_YOUR_CALM);
    else if (lateness.isGone(now)) this.destroy();
    else if (lateness.asks(now)) this.#ping(() => lateness.pong());
  }

  get #begun(): Begun | undefined {
    if (!this.#receivedSettings) return { kind: 'settings', name: 0 };
    return this.#headers.begun ?? this.#frames.begun;
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
    this.#notifyAllClosed();
  }

  // What a stream asks for.

  write(type: number, flags: number, id: number, payload: Uint8Array) {
    this.#output.frame(type, flags, id, payload);
  }

  writeAnswer(id: number, answer: Answer) {
    this.#output.answer(id, answer);
  }

  blocked(stream: Http2Stream) {
    this.#blocked.add(stream);
  }

  finished(stream: Http2Stream) {
    this.#conduct.finished();
    // What the client has not sent yet is not wanted any more.
    if (stream.remoteOpen) this.reset(stream, ERROR.NO_ERROR);
    else this.#remove(stream);
  }

  reset(stream: Http2Stream, code: number) {
    if (this.#streams.get(stream.id) !== stream) return;
    this.#refuse(stream.id, code);
    this.#notifyClosed(stream);
    this.#remove(stream);
  }

  // Reading.

  #read(chunk: Buffer) {
    if (this.#ended) return;
    try {
      this.#frames.read(chunk);
      if (this.congested) this.#socket.pause();
    } catch (error) {
      if (error instanceof ConnectionError) this.#fail(error.code);
      else if (error instanceof HpackError) this.#fail(ERROR.COMPRESSION_ERROR);
      else throw error;
    }
  }

  #frame(type: number, flags: number, id: number, payload: Buffer) {
    if (this.#ended) return;
    this.#headers.expects(type, id);
    if (!this.#receivedSettings && type !== FRAME.SETTINGS) throw protocolError('settings come first');
    switch (type) {
      case FRAME.DATA:
        return this.#onData(flags, id, payload);
      case FRAME.HEADERS:
        return this.#onHeaders(this.#headers.headers(flags, id, payload));
      case FRAME.CONTINUATION:
        this.#conduct.countIdle();
        return this.#onHeaders(this.#headers.continuation(flags, payload));
      case FRAME.SETTINGS:
        return this.#onSettings(flags, id, payload);
      case FRAME.PING:
        return this.#onPing(flags, id, payload);
      case FRAME.RST_STREAM:
        return this.#onReset(id, payload);
      case FRAME.WINDOW_UPDATE:
        return this.#onWindowUpdate(id, payload);
      case FRAME.PRIORITY:
        checkPriority(id, payload);
        return this.#conduct.countIdle();
      case FRAME.GOAWAY:
        if (id !== 0) throw protocolError('GOAWAY on a stream');
        return;
      case FRAME.PUSH_PROMISE:
        throw protocolError('a client cannot push');
      default:
        this.#conduct.countIdle();
    }
  }

  #onHeaders(block: HeaderBlock | undefined) {
    if (block === undefined) return;
    const { id, endStream, headers } = block;
    const stream = this.#streams.get(id);
    if (stream !== undefined) return this.#onTrailers(stream, endStream, headers);
    if (id % 2 === 0) throw protocolError('an even stream');
    if (id <= this.#lastId) {
      if (this.#reset.has(id)) return;
      throw new ConnectionError(ERROR.STREAM_CLOSED, 'a stream that is over');
    }
    if (this.#shuttingDown) return;
    this.#lastId = id;
    this.#conduct.requested();
    if (this.#streams.size >= this.#limits.streamsPerConnection) this.#refuse(id, ERROR.REFUSED_STREAM);
    else if (headers.tooLarge) this.#refuse(id, ERROR.ENHANCE_YOUR_CALM);
    else if (!headers.wellFormed) this.#refuse(id, ERROR.PROTOCOL_ERROR);
    else this.#open(id, endStream, headers);
  }

  #open(id: number, endStream: boolean, headers: RequestHeaders) {
    const stream = new Http2Stream(id, headers, this.#peerIp, this, this.#streamSendWindow);
    this.#streams.set(id, stream);
    stream.receiver = this.#begin(stream);
    if (endStream) this.#endOfBody(stream);
  }

  #onTrailers(stream: Http2Stream, endStream: boolean, headers: RequestHeaders) {
    if (!stream.remoteOpen) throw new ConnectionError(ERROR.STREAM_CLOSED, 'headers after the end');
    if (endStream && headers.wellFormedTrailers) this.#endOfBody(stream);
    else this.reset(stream, ERROR.PROTOCOL_ERROR);
  }

  #onData(flags: number, id: number, payload: Buffer) {
    if (!this.#receiveWindow.take(payload.length))
      throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'more than the window');
    this.#credit(0, this.#receiveWindow, payload.length);
    const part = unpadded(flags, payload);
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#onLateData(id);
    if (!stream.remoteOpen) throw new ConnectionError(ERROR.STREAM_CLOSED, 'data after the end');
    if (!stream.receiveWindow.take(payload.length)) return this.reset(stream, ERROR.FLOW_CONTROL_ERROR);
    if (part.length === 0) this.#conduct.countIdle();
    stream.received += part.length;
    stream.receiver?.data(part);
    if ((flags & FLAG.END_STREAM) !== 0) this.#endOfBody(stream);
    else if (this.#streams.has(id)) this.#credit(id, stream.receiveWindow, payload.length);
  }

  /** Not opened yet. While this side leaves, streams that the peer opened too late are not looked at. */
  #isIdle(id: number) {
    return id > this.#lastId && !this.#shuttingDown;
  }

  #onLateData(id: number) {
    if (id === 0 || this.#isIdle(id)) throw protocolError('data of no stream');
    if (id > this.#lastId) return;
    if (!this.#reset.has(id)) throw new ConnectionError(ERROR.STREAM_CLOSED, 'data after the end');
  }

  #endOfBody(stream: Http2Stream) {
    if (this.#streams.get(stream.id) !== stream) return;
    stream.remoteOpen = false;
    const said = stream.headers.contentLength;
    if (said !== undefined && said !== stream.received) this.reset(stream, ERROR.PROTOCOL_ERROR);
    else stream.receiver?.end();
  }

  #onSettings(flags: number, id: number, payload: Buffer) {
    const settings = settingsOf(flags, id, payload);
    if (settings === undefined) return;
    this.#receivedSettings = true;
    this.#conduct.countIdle();
    // Before anything that they let go.
    this.write(FRAME.SETTINGS, FLAG.ACK, 0, Buffer.alloc(0));
    for (const [setting, value] of settings)
      if (setting === SETTING.INITIAL_WINDOW_SIZE) this.#resizeWindows(value);
  }

  #resizeWindows(value: number) {
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
      this.#conduct.countIdle();
      this.write(FRAME.PING, FLAG.ACK, 0, payload);
    } else this.#pongs.shift()?.();
  }

  #onReset(id: number, payload: Buffer) {
    if (payload.length !== 4) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'RST_STREAM of 4 bytes');
    if (id === 0 || this.#isIdle(id)) throw protocolError('RST_STREAM of no stream');
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#conduct.countIdle();
    this.#conduct.countAbandoned();
    this.#notifyClosed(stream);
    this.#remove(stream);
  }

  #onWindowUpdate(id: number, payload: Buffer) {
    const more = incrementOf(payload);
    if (id === 0) {
      if (more === 0) throw protocolError('a window of nothing');
      this.sendWindow += more;
      if (this.sendWindow > MAX_WINDOW)
        throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'a window too large');
      return this.#unblock();
    }
    if (this.#isIdle(id)) throw protocolError('a window of no stream');
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#conduct.countIdle();
    if (more === 0) return this.reset(stream, ERROR.PROTOCOL_ERROR);
    stream.sendWindow += more;
    if (stream.sendWindow > MAX_WINDOW) return this.reset(stream, ERROR.FLOW_CONTROL_ERROR);
    stream.pump();
  }

  // Windows, ends and failures.

  #credit(id: number, window: ReceiveWindow, bytes: number) {
    const credit = window.release(bytes);
    if (credit > 0) this.#output.credit(id, credit);
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
    this.#output.frame(FRAME.RST_STREAM, 0, id, uint32(code));
  }

  #notifyClosed(stream: Http2Stream) {
    const over = !stream.localOpen && !stream.remoteOpen;
    stream.close();
    if (!over) stream.receiver?.closed();
  }

  #remove(stream: Http2Stream) {
    this.#streams.delete(stream.id);
    this.#blocked.delete(stream);
    this.#endIfDone();
  }

  #endIfDone() {
    if (!this.#shuttingDown || this.#streams.size > 0 || this.#ended) return;
    this.#output.flush();
    this.#socket.end();
  }

  /** The peer is told why; what it was sent before still leaves. */
  #fail(code: number) {
    this.#output.goAway(this.#lastId, code);
    this.#output.flush();
    this.#ended = true;
    this.#socket.destroySoon();
    this.#notifyAllClosed();
  }

  #notifyAllClosed() {
    for (const stream of this.#streams.values()) this.#notifyClosed(stream);
    this.#streams.clear();
    this.#blocked.clear();
  }

  #sendSettings() {
    const payload = settingsPayload([
      [SETTING.MAX_CONCURRENT_STREAMS, this.#limits.streamsPerConnection],
      [SETTING.MAX_HEADER_LIST_SIZE, this.#limits.headerBytes],
    ]);
    this.write(FRAME.SETTINGS, 0, 0, payload);
    this.#output.credit(0, RECEIVE_WINDOW - DEFAULT_WINDOW);
  }
}

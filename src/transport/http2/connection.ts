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
import { Lateness, SETTINGS_DUE } from './lateness.ts';
import { Output } from './output.ts';
import { checkGoAway, checkPriority, checkReset, incrementOf, settingsOf, unpadded } from './payloads.ts';
import { Pings } from './pings.ts';
import { ReceiveWindow } from './receive-window.ts';
import type { RequestHeaders } from './request-headers.ts';
import { Http2Stream, type StreamConnection } from './stream.ts';
import { Streams } from './streams.ts';
import type { ConnectionLimits, ServerConnection, Surroundings, WholeResponse } from './transport.ts';

/** The receive window of a connection in bytes, over all streams. */
const RECEIVE_WINDOW = 1 << 20;
/** A connection with more unsent bytes is not read until its peer reads. */
const MAX_UNSENT = 256 << 10;
/** WINDOW_UPDATEs smaller than this count as frames without effect: a client that reads sends larger ones. */
const SMALL_WINDOW = 1 << 10;

/** The server's side of an HTTP/2 connection by RFC 9113: no push, no upgrade, no priorities. */
export class Http2Connection implements ServerConnection, StreamConnection {
  readonly #socket: Socket;
  readonly #output: Output;
  readonly #peerIp: string;
  readonly #limits: ConnectionLimits;
  readonly #around: Surroundings;
  readonly #headers: HeaderReader;
  readonly #streams: Streams;
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
  readonly #pings: Pings;

  constructor(socket: Socket, peerIp: string, limits: ConnectionLimits, around: Surroundings, now: number) {
    this.#lateness = new Lateness(limits, now);
    this.#socket = socket;
    this.#peerIp = peerIp;
    this.#limits = limits;
    this.#headers = new HeaderReader(limits.headerBytes);
    this.#around = around;
    this.#streams = new Streams(around.failed);
    this.#output = new Output(socket, () => {
      if (this.#streams.areBlocked || this.#socket.isPaused()) this.#unblock();
    });
    this.#pings = new Pings(this.#output);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.#unblock());
    socket.on('end', () => this.destroy());
    socket.on('error', () => this.destroy());
    socket.on('close', () => this.destroy());
    this.#sendSettings();
  }

  /** Whether a request is in flight. */
  get busy(): boolean {
    return this.#streams.size > 0;
  }

  get congested(): boolean {
    return this.#socket.writableLength + this.#output.length > MAX_UNSENT;
  }

  /** Asks the peer to open at most this many streams at once; up to the first limit more are still accepted. */
  limitStreams(streams: number) {
    if (!this.#ended) this.#output.settings([[SETTING.MAX_CONCURRENT_STREAMS, streams]]);
  }

  /** Accepts no new requests; ends when those in flight have ended. */
  shutDownGracefully() {
    if (this.#shuttingDown || this.#ended) return;
    // Requests in flight are still served: the final GOAWAY follows when a PONG shows that the peer has read the first.
    this.#output.goAway(MAX_WINDOW, ERROR.NO_ERROR);
    this.#pings.ask(() => {
      this.#shuttingDown = true;
      this.#output.goAway(this.#lastId, ERROR.NO_ERROR);
      this.#endIfDone();
    });
  }

  /** Called at each tick: ends a connection whose peer is late or does not answer. */
  tick(now: number) {
    if (this.#ended) return;
    this.#conduct.tick();
    const lateness = this.#lateness;
    const begun = this.#receivedSettings ? (this.#headers.begun ?? this.#frames.begun) : SETTINGS_DUE;
    if (lateness.isOverdue(begun, now)) this.#fail(ERROR.ENHANCE_YOUR_CALM);
    else if (lateness.isGone(now)) this.destroy();
    else if (lateness.asks(now)) this.#pings.ask(() => lateness.pong());
    for (const stream of this.#streams.stalled(now, this.#limits.unreadResponseMs))
      this.reset(stream, ERROR.CANCEL);
  }

  destroy() {
    if (this.#ended) return;
    this.#ended = true;
    this.#pings.end();
    this.#socket.destroy();
    this.#streams.closeAll();
  }

  // The interface for streams.

  write(type: number, flags: number, id: number, payload: Uint8Array) {
    this.#output.frame(type, flags, id, payload);
  }

  writeWhole(id: number, response: WholeResponse) {
    this.#output.wholeResponse(id, response);
  }

  blocked(stream: Http2Stream) {
    this.#streams.block(stream);
  }

  finished(stream: Http2Stream) {
    this.#conduct.finished();
    // The rest of the request is no longer needed.
    if (stream.remoteOpen) this.reset(stream, ERROR.NO_ERROR);
    else this.#remove(stream);
  }

  reset(stream: Http2Stream, code: number) {
    if (!this.#streams.has(stream)) return;
    this.#refuse(stream.id, code);
    this.#streams.close(stream);
    this.#remove(stream);
  }

  unread(stream: Http2Stream, bytes: number) {
    if (!this.#around.holdUnread(bytes)) this.reset(stream, ERROR.ENHANCE_YOUR_CALM);
  }

  credit(stream: Http2Stream, bytes: number) {
    stream.unconsumed -= bytes;
    this.#credit(stream.id, stream.receiveWindow, bytes);
    this.#credit(0, this.#receiveWindow, bytes);
  }

  // Reading.

  #read(chunk: Buffer) {
    if (this.#ended) return;
    try {
      this.#frames.read(chunk);
      this.#streams.afterRead();
      if (this.congested) this.#socket.pause();
    } catch (error) {
      if (error instanceof ConnectionError) this.#fail(error.code);
      else if (error instanceof HpackError) this.#fail(ERROR.COMPRESSION_ERROR);
      else {
        this.#around.failed(error);
        this.#fail(ERROR.INTERNAL_ERROR);
      }
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
        if (this.#pings.hear(flags, id, payload)) this.#conduct.countIdle();
        return;
      case FRAME.RST_STREAM:
        return this.#onReset(id, payload);
      case FRAME.WINDOW_UPDATE:
        return this.#onWindowUpdate(id, payload);
      case FRAME.PRIORITY:
        checkPriority(id, payload);
        return this.#conduct.countIdle();
      case FRAME.GOAWAY:
        return checkGoAway(id, payload);
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
      if (this.#streams.wasReset(id)) return;
      throw new ConnectionError(ERROR.STREAM_CLOSED, 'a stream that is over');
    }
    if (this.#shuttingDown) return;
    this.#lastId = id;
    if (this.#streams.size >= this.#limits.streamsPerConnection) {
      this.#refuse(id, ERROR.REFUSED_STREAM);
      this.#conduct.countIdle();
    } else if (headers.tooLarge || !headers.wellFormed) {
      this.#refuse(id, headers.tooLarge ? ERROR.ENHANCE_YOUR_CALM : ERROR.PROTOCOL_ERROR);
      this.#conduct.countAbandoned();
    } else this.#open(id, endStream, headers);
  }

  #open(id: number, endStream: boolean, headers: RequestHeaders) {
    this.#conduct.requested();
    const stream = new Http2Stream(id, headers, this.#peerIp, this, this.#streamSendWindow);
    this.#streams.add(stream);
    stream.receiver = this.#around.begin(stream);
    if (endStream) this.#endOfBody(stream);
    else this.#streams.touch(stream);
  }

  #onTrailers(stream: Http2Stream, endStream: boolean, headers: RequestHeaders) {
    if (!stream.remoteOpen) throw new ConnectionError(ERROR.STREAM_CLOSED, 'headers after the end');
    if (endStream && headers.wellFormedTrailers) this.#endOfBody(stream);
    else this.#offend(stream, ERROR.PROTOCOL_ERROR);
  }

  #onData(flags: number, id: number, payload: Buffer) {
    if (!this.#receiveWindow.take(payload.length))
      throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'more than the window');
    const part = unpadded(flags, payload);
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      this.#credit(0, this.#receiveWindow, payload.length);
      return this.#onLateData(id);
    }
    if (!stream.remoteOpen) throw new ConnectionError(ERROR.STREAM_CLOSED, 'data after the end');
    stream.unconsumed += payload.length;
    if (!stream.receiveWindow.take(payload.length)) return this.#offend(stream, ERROR.FLOW_CONTROL_ERROR);
    if (part.length === 0) this.#conduct.countIdle();
    stream.received += part.length;
    stream.receiver?.data(part);
    if ((flags & FLAG.END_STREAM) !== 0) return this.#endOfBody(stream);
    const said = stream.headers.contentLength;
    if (said !== undefined && stream.received > said) return this.#offend(stream, ERROR.PROTOCOL_ERROR);
    stream.consumed(payload.length - part.length);
    this.#streams.touch(stream);
  }

  /** Resets a stream for a fault of its peer. Attacks can use such resets like their own (CVE-2025-8671). */
  #offend(stream: Http2Stream, code: number) {
    this.reset(stream, code);
    this.#conduct.countAbandoned();
  }

  /** Whether a stream is not opened yet; even ids never are. During shutdown, streams opened too late are ignored. */
  #isIdle(id: number) {
    return id % 2 === 0 || (id > this.#lastId && !this.#shuttingDown);
  }

  #onLateData(id: number) {
    if (this.#isIdle(id)) throw protocolError('data of no stream');
    if (id > this.#lastId) return;
    if (!this.#streams.wasReset(id)) throw new ConnectionError(ERROR.STREAM_CLOSED, 'data after the end');
  }

  #endOfBody(stream: Http2Stream) {
    if (!this.#streams.has(stream)) return;
    stream.remoteOpen = false;
    this.#release(stream);
    const said = stream.headers.contentLength;
    if (said !== undefined && said !== stream.received) this.#offend(stream, ERROR.PROTOCOL_ERROR);
    else stream.receiver?.end();
  }

  #onSettings(flags: number, id: number, payload: Buffer) {
    const settings = settingsOf(flags, id, payload);
    if (settings === undefined) return;
    this.#receivedSettings = true;
    this.#conduct.countIdle();
    // The acknowledgement must precede any DATA that the new settings allow.
    this.write(FRAME.SETTINGS, FLAG.ACK, 0, Buffer.alloc(0));
    const window = settings.findLast(([setting]) => setting === SETTING.INITIAL_WINDOW_SIZE);
    if (window !== undefined) this.#resizeWindows(window[1]);
  }

  #resizeWindows(value: number) {
    const more = value - this.#streamSendWindow;
    this.#streamSendWindow = value;
    this.#streams.resize(more);
    this.#unblock();
  }

  #onReset(id: number, payload: Buffer) {
    checkReset(payload);
    if (this.#isIdle(id)) throw protocolError('RST_STREAM of no stream');
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#conduct.countIdle();
    this.#conduct.countAbandoned();
    this.#streams.close(stream);
    this.#remove(stream);
  }

  #onWindowUpdate(id: number, payload: Buffer) {
    const more = incrementOf(payload);
    if (id === 0) {
      if (more === 0) throw protocolError('a window of nothing');
      // Each one makes all blocked streams try to send, so small ones are counted.
      if (more < SMALL_WINDOW) this.#conduct.countIdle();
      this.sendWindow += more;
      if (this.sendWindow > MAX_WINDOW)
        throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'a window too large');
      return this.#unblock();
    }
    if (this.#isIdle(id)) throw protocolError('a window of no stream');
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#conduct.countIdle();
    if (more === 0) return this.#offend(stream, ERROR.PROTOCOL_ERROR);
    stream.sendWindow += more;
    if (stream.sendWindow > MAX_WINDOW) return this.#offend(stream, ERROR.FLOW_CONTROL_ERROR);
    stream.pump();
  }

  // Windows, ends and failures.

  #credit(id: number, window: ReceiveWindow, bytes: number) {
    const credit = window.release(bytes);
    if (credit > 0) this.#output.credit(id, credit);
  }

  #unblock() {
    if (this.congested) return;
    this.#streams.pumpBlocked();
    if (this.#socket.isPaused()) this.#socket.resume();
  }

  #refuse(id: number, code: number) {
    this.#streams.noteReset(id);
    this.#output.reset(id, code);
  }

  /** Returns the unconsumed bytes of an ended stream to the connection's window. */
  #release(stream: Http2Stream) {
    this.#credit(0, this.#receiveWindow, stream.unconsumed);
    stream.unconsumed = 0;
  }

  #remove(stream: Http2Stream) {
    this.#release(stream);
    this.#streams.remove(stream);
    this.#endIfDone();
  }

  #endIfDone() {
    if (!this.#shuttingDown || this.#streams.size > 0 || this.#ended) return;
    this.#output.flush();
    this.#socket.end();
  }

  /** Ends the connection with an error; frames written before are still sent. */
  #fail(code: number) {
    this.#output.goAway(this.#lastId, code);
    this.#output.flush();
    this.#ended = true;
    this.#socket.destroySoon();
    this.#streams.closeAll();
  }

  #sendSettings() {
    const { streamsPerConnection, headerBytes } = this.#limits;
    const streams = [SETTING.MAX_CONCURRENT_STREAMS, streamsPerConnection] as const;
    this.#output.settings([streams, [SETTING.MAX_HEADER_LIST_SIZE, headerBytes]]);
    this.#output.credit(0, RECEIVE_WINDOW - DEFAULT_WINDOW);
  }
}

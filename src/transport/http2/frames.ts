import type { Begun } from './lateness.ts';

/** Frame types, flags, settings and error codes of HTTP/2 (RFC 9113). */
export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const FLAG = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8, PRIORITY: 0x20 } as const;

export const SETTING = {
  ENABLE_PUSH: 2,
  MAX_CONCURRENT_STREAMS: 3,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
  MAX_HEADER_LIST_SIZE: 6,
} as const;

export const ERROR = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  ENHANCE_YOUR_CALM: 11,
} as const;

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
export const FRAME_HEAD = 9;
/** The smallest maximum that the protocol allows; frames of both sides keep to it. */
export const MAX_FRAME = 16_384;
export const DEFAULT_WINDOW = 65_535;
export const MAX_WINDOW = 2 ** 31 - 1;

/** An error that ends the connection. */
export class ConnectionError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** Writes a frame's head. */
export function writeHead(
  to: Buffer,
  at: number,
  length: number,
  type: number,
  flags: number,
  id: number,
): number {
  to[at] = length >>> 16;
  to[at + 1] = length >>> 8;
  to[at + 2] = length;
  to[at + 3] = type;
  to[at + 4] = flags;
  to[at + 5] = id >>> 24;
  to[at + 6] = id >>> 16;
  to[at + 7] = id >>> 8;
  to[at + 8] = id;
  return at + FRAME_HEAD;
}

export function protocolError(text: string): ConnectionError {
  return new ConnectionError(ERROR.PROTOCOL_ERROR, text);
}

/** The error for a peer that causes excessive work. */
export function excessiveLoad(text: string): ConnectionError {
  return new ConnectionError(ERROR.ENHANCE_YOUR_CALM, text);
}

/** Called with each frame; the callee owns the payload. */
type OnFrame = (type: number, flags: number, id: number, payload: Buffer) => void;

/** Splits the received bytes into frames, whatever their chunks. */
export class FrameReader {
  readonly #onFrame: OnFrame;
  #rest: Buffer | undefined;
  #prefaced = false;
  /** The number of complete frames. */
  #whole = 0;

  constructor(onFrame: OnFrame) {
    this.#onFrame = onFrame;
  }

  /** The incomplete frame, if there is one. */
  get begun(): Begun | undefined {
    if (this.#rest === undefined) return undefined;
    const type = this.#rest[3];
    const ofHeaders = type === FRAME.HEADERS || type === FRAME.CONTINUATION;
    return { kind: ofHeaders ? 'headers' : 'frame', name: -this.#whole };
  }

  /** @throws ConnectionError, and errors of onFrame */
  read(chunk: Buffer): void {
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = undefined;
    let at = this.#prefaced ? 0 : this.#preface(bytes);
    while (this.#prefaced && bytes.length - at >= FRAME_HEAD) {
      const length = bytes.readUIntBE(at, 3);
      if (length > MAX_FRAME) throw new ConnectionError(ERROR.FRAME_SIZE_ERROR, 'a frame too long');
      const end = at + FRAME_HEAD + length;
      if (bytes.length < end) break;
      this.#whole++;
      const id = bytes.readUInt32BE(at + 5) & 0x7fff_ffff;
      this.#onFrame(bytes[at + 3] ?? 0, bytes[at + 4] ?? 0, id, bytes.subarray(at + FRAME_HEAD, end));
      at = end;
    }
    // A copy: the socket's chunk may be much larger than this rest.
    if (at < bytes.length) this.#rest = Buffer.from(bytes.subarray(at));
  }

  #preface(bytes: Buffer): number {
    const head = bytes.subarray(0, PREFACE.length);
    if (!head.equals(PREFACE.subarray(0, head.length))) throw protocolError('no preface');
    this.#prefaced = head.length === PREFACE.length;
    return this.#prefaced ? PREFACE.length : 0;
  }
}

import {
  ConnectionError,
  ERROR,
  excessiveLoad,
  FLAG,
  MAX_FRAME,
  MAX_WINDOW,
  protocolError,
  SETTING,
} from './frames.ts';

/** Decodes the payloads of frames, and refuses those that RFC 9113 section 6 does not allow. */

const PRIORITY_BYTES = 5;
const PING_BYTES = 8;
const RESET_BYTES = 4;
/** The least size. */
const GOAWAY_BYTES = 8;
const SETTING_BYTES = 6;
/** The most settings in one frame: HTTP/2 has a dozen, and a client may send each once. */
const MAX_SETTINGS = 32;
const MAX_FRAME_SETTING = 2 ** 24 - 1;

/** The payload of DATA or HEADERS without its padding. @throws ConnectionError */
export function unpadded(flags: number, payload: Buffer): Buffer {
  if ((flags & FLAG.PADDED) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined) throw wrongSize('padding');
  if (padding >= payload.length) throw protocolError('more padding than frame');
  return payload.subarray(1, payload.length - padding);
}

/** The header block of HEADERS. @throws ConnectionError */
export function blockOf(flags: number, id: number, payload: Buffer): Buffer {
  const block = unpadded(flags, payload);
  if ((flags & FLAG.PRIORITY) === 0) return block;
  checkPriority(id, block.subarray(0, PRIORITY_BYTES));
  return block.subarray(PRIORITY_BYTES);
}

/** Priorities are ignored, but must be well formed. @throws ConnectionError */
export function checkPriority(id: number, payload: Buffer): void {
  if (id === 0) throw protocolError('PRIORITY of no stream');
  if (payload.length !== PRIORITY_BYTES) throw wrongSize('PRIORITY');
  if ((payload.readUInt32BE(0) & 0x7fff_ffff) === id) throw protocolError('a stream depends on itself');
}

/** @throws ConnectionError */
export function checkPing(id: number, payload: Buffer): void {
  if (id !== 0) throw protocolError('PING of a stream');
  if (payload.length !== PING_BYTES) throw wrongSize('PING');
}

/** @throws ConnectionError */
export function checkGoAway(id: number, payload: Buffer): void {
  if (id !== 0) throw protocolError('GOAWAY on a stream');
  if (payload.length < GOAWAY_BYTES) throw wrongSize('GOAWAY');
}

/** @throws ConnectionError */
export function checkReset(payload: Buffer): void {
  if (payload.length !== RESET_BYTES) throw wrongSize('RST_STREAM');
}

/** The increment of WINDOW_UPDATE. @throws ConnectionError */
export function incrementOf(payload: Buffer): number {
  if (payload.length !== 4) throw wrongSize('WINDOW_UPDATE');
  return payload.readUInt32BE(0) & 0x7fff_ffff;
}

/** The settings of a peer; undefined when it acknowledges ours. @throws ConnectionError */
export function settingsOf(
  flags: number,
  id: number,
  payload: Buffer,
): (readonly [setting: number, value: number])[] | undefined {
  if (id !== 0) throw protocolError('SETTINGS of a stream');
  const ack = (flags & FLAG.ACK) !== 0;
  if (ack ? payload.length > 0 : payload.length % SETTING_BYTES !== 0) throw wrongSize('SETTINGS');
  if (ack) return undefined;
  if (payload.length > MAX_SETTINGS * SETTING_BYTES) throw excessiveLoad('too many settings');
  const settings = [];
  for (let at = 0; at < payload.length; at += SETTING_BYTES) {
    const [setting, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
    if (setting === SETTING.ENABLE_PUSH && value > 1) throw protocolError('ENABLE_PUSH is 0 or 1');
    if (setting === SETTING.MAX_FRAME_SIZE && (value < MAX_FRAME || value > MAX_FRAME_SETTING))
      throw protocolError('MAX_FRAME_SIZE out of bounds');
    if (setting === SETTING.INITIAL_WINDOW_SIZE && value > MAX_WINDOW)
      throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'a window too large');
    settings.push([setting, value] as const);
  }
  return settings;
}

/** The payload of our own SETTINGS. */
export function settingsPayload(settings: readonly (readonly [setting: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(SETTING_BYTES * settings.length);
  for (const [i, [setting, value]] of settings.entries()) {
    payload.writeUInt16BE(setting, SETTING_BYTES * i);
    payload.writeUInt32BE(value, SETTING_BYTES * i + 2);
  }
  return payload;
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function wrongSize(frame: string): ConnectionError {
  return new ConnectionError(ERROR.FRAME_SIZE_ERROR, `${frame} of a wrong size`);
}

/** A load of different calls: gRPC written by hand, so that one core can ask more than another can answer. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { connect as connectTls } from 'node:tls';
import { FRAME, FRAME_HEAD, writeHead } from '../../src/transport/http2/frames.ts';
import { encodeHeaders } from '../../src/transport/http2/hpack.ts';

const STREAM_SLOTS = 4_096;

export interface LoadTarget {
  readonly port: number;
  readonly path: string;
  readonly authorization: string;
  /** Every call has a deadline that no other has; headers are encoded as grpc-go does, all of them into the table. */
  readonly deadlines?: boolean;
  /** Over TLS, to a server with a certificate of this CA. */
  readonly ca?: Buffer;
  /** Called for each call that the server refuses, which else fails the run. */
  readonly refused?: () => void;
}

/** As Go's HPACK encodes, without Huffman: every field that is not in the table is added to it. */
class TableEncoder {
  readonly #entries: (readonly [name: string, value: string])[] = [];
  #bytes = 0;

  encode(fields: readonly (readonly [name: string, value: string])[]): Buffer {
    return Buffer.from(fields.map(([name, value]) => this.#field(name, value)).join(''), 'latin1');
  }

  #field(name: string, value: string): string {
    const whole = this.#entries.findIndex((entry) => entry[0] === name && entry[1] === value);
    if (whole >= 0) return integer(0x80, 7, FIRST_ENTRY + whole);
    const index = this.#entries.findIndex((entry) => entry[0] === name);
    this.#entries.unshift([name, value]);
    this.#bytes += name.length + value.length + 32;
    while (this.#bytes > 4096) {
      const [oldName = '', oldValue = ''] = this.#entries.pop() ?? [];
      this.#bytes -= oldName.length + oldValue.length + 32;
    }
    const named = index >= 0 ? integer(0x40, 6, FIRST_ENTRY + index) : `\x40${text(name)}`;
    return named + text(value);
  }
}

/** The first index of the dynamic table of HPACK, after the static one. */
const FIRST_ENTRY = 62;

function integer(flags: number, prefixBits: number, value: number): string {
  const mask = 2 ** prefixBits - 1;
  if (value < mask) return String.fromCharCode(flags | value);
  return String.fromCharCode(flags | mask, value - mask);
}

function text(plain: string): string {
  return integer(0, 7, plain.length) + plain;
}

/** One connection. Answers come back as the tag of their call; a call that is not answered OK fails all. */
class LoadConnection {
  readonly #socket: Socket;
  readonly #fields: readonly (readonly [name: string, value: string])[];
  readonly #headers: Buffer;
  /** For headers that are not always alike. */
  readonly #encoder: TableEncoder | undefined;
  readonly #answered: (tag: number) => void;
  readonly #refused: (() => void) | undefined;
  readonly #tags = new Float64Array(STREAM_SLOTS);
  readonly #out: Buffer[] = [];
  #rest: Buffer | undefined;
  #next = 1;
  /** Streams that have sent data. */
  readonly #data = new Uint32Array(STREAM_SLOTS);
  underWay = 0;

  constructor(
    socket: Socket,
    { path, authorization, deadlines = false, refused }: LoadTarget,
    answered: (tag: number) => void,
  ) {
    this.#socket = socket;
    this.#refused = refused;
    this.#answered = answered;
    this.#encoder = deadlines ? new TableEncoder() : undefined;
    this.#fields = [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', path],
      [':authority', 'bench'],
      ['content-type', 'application/grpc'],
      ['te', 'trailers'],
      ['authorization', authorization],
    ];
    this.#headers = encodeHeaders(this.#fields);
    const largeWindows = Buffer.from('000400000000', 'hex');
    largeWindows.writeUInt32BE(2 ** 31 - 1, 2);
    this.#out.push(
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      frame(FRAME.SETTINGS, 0, 0, largeWindows),
    );
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
  }

  /** Sent at the next flush. */
  call(message: Buffer, tag: number): void {
    const id = this.#next;
    this.#next += 2;
    this.underWay++;
    this.#tags[(id >> 1) % STREAM_SLOTS] = tag;
    // A second, minus the time since the caller set it.
    const timeout = ['grpc-timeout', `${999_999 - (id % 10_000)}u`] as const;
    const headers = this.#encoder?.encode([...this.#fields, timeout]) ?? this.#headers;
    this.#out.push(frame(FRAME.HEADERS, 4, id, headers), frame(FRAME.DATA, 1, id, message));
  }

  flush(): void {
    if (this.#out.length > 0) this.#socket.write(Buffer.concat(this.#out.splice(0)));
  }

  #read(chunk: Buffer): void {
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (bytes.length - at >= 9) {
      const end = at + 9 + bytes.readUIntBE(at, 3);
      if (bytes.length < end) break;
      this.#frame(bytes, at, end);
      at = end;
    }
    this.#rest = at < bytes.length ? bytes.subarray(at) : undefined;
  }

  #frame(bytes: Buffer, at: number, end: number): void {
    const [type, flags, id] = [bytes[at + 3], bytes[at + 4] ?? 0, bytes.readUInt32BE(at + 5)];
    if (type === FRAME.HEADERS && (flags & 1) !== 0) {
      // An answer without a message is a failure.
      if (this.#data[(id >> 1) % STREAM_SLOTS] !== id) {
        if (this.#refused === undefined)
          throw new Error(`a call failed: ${bytes.subarray(at + 9, end).toString('latin1')}`);
        this.#refused();
      }
      this.underWay--;
      this.#answered(this.#tags[(id >> 1) % STREAM_SLOTS] ?? 0);
    } else if (type === FRAME.DATA) {
      this.#data[(id >> 1) % STREAM_SLOTS] = id;
      this.#received += end - at - 9;
      if (this.#received > 2 ** 30) this.#credit();
    } else if (type === FRAME.SETTINGS && (flags & 1) === 0)
      this.#out.push(frame(FRAME.SETTINGS, 1, 0, Buffer.alloc(0)));
    else if (type === FRAME.PING && (flags & 1) === 0)
      this.#out.push(frame(FRAME.PING, 1, 0, bytes.subarray(at + 9, end)));
    else if (type === FRAME.GOAWAY) throw new Error('the server ends the connection');
  }

  #received = 2 ** 30;
  #credit(): void {
    const more = Buffer.alloc(4);
    more.writeUInt32BE(1 << 20);
    this.#out.push(frame(FRAME.WINDOW_UPDATE, 0, 0, more));
    this.#received -= 1 << 20;
  }

  end(): void {
    this.#socket.destroy();
  }
}

function frame(type: number, flags: number, id: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEAD + payload.length);
  payload.copy(bytes, writeHead(bytes, 0, payload.length, type, flags, id));
  return bytes;
}

async function connections(target: LoadTarget, count: number, answered: (tag: number) => void) {
  return Promise.all(
    Array.from({ length: count }, async () => {
      const { port, ca } = target;
      const plain = connect({ port, host: '127.0.0.1', noDelay: true });
      const socket =
        ca === undefined
          ? plain
          : connectTls({ socket: plain, ca, host: '127.0.0.1', ALPNProtocols: ['h2'] });
      await once(socket, ca === undefined ? 'connect' : 'secureConnect');
      return new LoadConnection(socket, target, answered);
    }),
  );
}

const CONNECTIONS = 10;
const STREAMS = 32;

/** Calls a second when each of 320 streams asks one call after the other. */
export async function closedLoop(
  target: LoadTarget,
  calls: number,
  message: (i: number) => Buffer,
  streams = STREAMS,
): Promise<number> {
  let sent = 0;
  let done = 0;
  let finish = () => {};
  const finished = new Promise<void>((resolve) => (finish = resolve));
  const all = await connections(target, CONNECTIONS, (tag) => {
    done++;
    if (sent < calls) all[tag]?.call(message(sent++), tag);
    if (done === calls) finish();
  });
  const begun = performance.now();
  for (let stream = 0; stream < streams; stream++) {
    for (const [tag, connection] of all.entries()) if (sent < calls) connection.call(message(sent++), tag);
  }
  const flush = () => {
    for (const connection of all) connection.flush();
    if (done < calls) setImmediate(flush);
  };
  flush();
  await finished;
  const seconds = (performance.now() - begun) / 1000;
  for (const connection of all) connection.end();
  return calls / seconds;
}

/** Milliseconds from when each call was due, whether it could be sent then or not: no coordinated omission. */
export async function openLoop(
  target: LoadTarget,
  callsPerSecond: number,
  seconds: number,
  message: (i: number) => Buffer,
): Promise<Float64Array> {
  const calls = Math.round(callsPerSecond * seconds);
  const took = new Float64Array(calls);
  let done = 0;
  let sent = 0;
  let finish = () => {};
  const finished = new Promise<void>((resolve) => (finish = resolve));
  const interval = 1000 / callsPerSecond;
  let begun = 0;
  const all = await connections(target, CONNECTIONS, (tag) => {
    took[tag] = performance.now() - (begun + tag * interval);
    if (++done === calls) finish();
  });
  begun = performance.now();
  const tick = () => {
    const due = Math.min(calls, Math.floor((performance.now() - begun) / interval) + 1);
    for (; sent < due; sent++) {
      // A connection takes 100 at once; more wait here, and their time runs.
      const connection = all[sent % CONNECTIONS];
      if (connection === undefined || connection.underWay >= 100) break;
      connection.call(message(sent), sent);
    }
    for (const connection of all) connection.flush();
    if (done < calls) setImmediate(tick);
  };
  tick();
  await finished;
  for (const connection of all) connection.end();
  return took.sort();
}

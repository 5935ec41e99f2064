/** The same bytes to both servers of HTTP/2, in the same pieces; what each answers, in words that can be compared. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { LIMITS } from '../../src/rpc/limits.ts';
import { FLAG, FRAME, FRAME_HEAD } from '../../src/transport/http2/frames.ts';
import { HpackDecoder } from '../../src/transport/http2/hpack.ts';
import {
  ResponseHeaders,
  type ServerConnection,
  type ServerStream,
} from '../../src/transport/http2/transport.ts';
import { frame, PREFACE, SETTINGS } from '../attacks/attack.ts';
import { HTTP2_SERVERS, type Http2ServerName } from '../support/http2.ts';
import { MemorySocket } from './http2/memory-socket.ts';

/** Closes the sequence: its acknowledgement tells that everything before it was looked at. */
const MARK = frame(FRAME.PING, 0, 0, Buffer.from('the end.'));
/** A damaged frame may swallow what follows: these are more than any frame takes, and no frames of a connection. */
const FATAL = Buffer.alloc(20_000);
const OK = new ResponseHeaders([[':status', '200']]);
const TRAILERS = new ResponseHeaders([['x-end', 'yes']]);

/** What came back: of each stream whether and with how many bytes it was answered, or how it was reset; and the end. */
export interface Told {
  readonly streams: Readonly<Record<number, string>>;
  /** The error of GOAWAY; 'open' when the connection still lives. */
  readonly end: string;
}

/** Frames, of which the bytes may be damaged: then they end their connection. */
export interface Sequence {
  readonly frames: readonly Buffer[];
  readonly damaged: boolean;
}

/** Answers every request with its body. */
function echo(stream: ServerStream) {
  const parts: Buffer[] = [];
  return {
    data: (part: Buffer) => {
      parts.push(Buffer.from(part));
      stream.consumed(part.length);
    },
    end: () => stream.respondWhole({ headers: OK, body: Buffer.concat(parts), trailers: TRAILERS }),
    closed: () => {},
  };
}

const AROUND = {
  begin: echo,
  failed: (error: unknown) => {
    throw error;
  },
  holdUnread: () => true,
};

/** Both servers: ours in memory, Node's on a socket of its own. */
export class Pair {
  readonly #node = createServer((socket) => this.#accept(socket));
  readonly #connections = new Set<ServerConnection>();
  #port = 0;

  static async listen(): Promise<Pair> {
    const pair = new Pair();
    pair.#node.listen(0, '127.0.0.1');
    await once(pair.#node, 'listening');
    pair.#port = (pair.#node.address() as AddressInfo).port;
    return pair;
  }

  #accept(socket: Socket): void {
    socket.setNoDelay().on('error', () => socket.destroy());
    const connection = new HTTP2_SERVERS.node(socket, '', LIMITS, AROUND, 0);
    this.#connections.add(connection);
    socket.on('close', () => this.#connections.delete(connection));
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy();
    this.#node.close();
  }

  /** @param cuts lengths of the first pieces. */
  tell(name: Http2ServerName, { frames, damaged }: Sequence, cuts: readonly number[]): Promise<Told> {
    const after = damaged ? FATAL : MARK;
    const bytes = Buffer.concat([PREFACE, SETTINGS, ...frames, after]);
    const pieces: Buffer[] = [];
    let at = 0;
    for (const cut of [...cuts, bytes.length]) {
      if (at < bytes.length) pieces.push(bytes.subarray(at, at + cut));
      at += cut;
    }
    return name === 'own' ? this.#own(pieces) : this.#ofNode(pieces, damaged);
  }

  async #own(pieces: readonly Buffer[]): Promise<Told> {
    const socket = new MemorySocket();
    const connection = new HTTP2_SERVERS.own(socket.asSocket, '', LIMITS, AROUND, 0);
    for (const piece of pieces) socket.receive(piece);
    const answers = new Answers();
    answers.read(await socket.taken());
    connection.destroy();
    return answers.told(answers.marks > 0 ? 'open' : 'closed');
  }

  async #ofNode(pieces: readonly Buffer[], damaged: boolean): Promise<Told> {
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true });
    const answers = new Answers();
    const end = new Promise<string>((resolve) => {
      let quiet = 0;
      let heard = 0;
      socket.on('data', (chunk: Buffer) => {
        const { marks } = answers;
        answers.read(chunk);
        // Node keeps the socket of a connection that nghttp2 has given up: the word of it is the end.
        if (answers.isOver) resolve('');
        if (answers.marks === marks) return;
        // Node answers piece by piece in later turns than it acknowledges: it is asked until it has no more to say.
        quiet = answers.others === heard ? quiet + 1 : 0;
        heard = answers.others;
        if (quiet < 2) setImmediate(() => setImmediate(() => socket.write(MARK)));
        else resolve('open');
      });
      socket.on('error', () => {});
      socket.on('close', () => resolve('closed'));
    });
    for (const piece of pieces) {
      socket.write(piece);
      if (pieces.length > 1) await new Promise((resolve) => setImmediate(resolve));
    }
    // One that nghttp2 has given up may say nothing: it is let go of when its client goes.
    if (damaged) socket.end();
    const told = answers.told(await end);
    socket.destroy();
    return told;
  }
}

/** Reads what a server sends. */
class Answers {
  readonly #streams: Record<number, string> = {};
  readonly #bodies = new Map<number, number>();
  readonly #hpack = new HpackDecoder();
  #goAway: number | undefined;
  #rest = Buffer.alloc(0);
  /** Acknowledgements of the mark. */
  marks = 0;
  /** Other frames. */
  others = 0;

  get isOver(): boolean {
    return this.#goAway !== undefined;
  }

  read(chunk: Buffer): void {
    let bytes = Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= FRAME_HEAD && bytes.length >= FRAME_HEAD + bytes.readUIntBE(0, 3)) {
      const end = FRAME_HEAD + bytes.readUIntBE(0, 3);
      this.#frame(bytes[3] ?? 0, bytes[4] ?? 0, bytes.readUInt32BE(5), bytes.subarray(FRAME_HEAD, end));
      bytes = bytes.subarray(end);
    }
    this.#rest = bytes;
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): void {
    if (type === FRAME.GOAWAY) this.#goAway = payload.readUInt32BE(4);
    if (type === FRAME.RST_STREAM) this.#streams[id] ??= `reset ${payload.readUInt32BE(0)}`;
    if (type === FRAME.DATA) this.#bodies.set(id, (this.#bodies.get(id) ?? 0) + payload.length);
    if (type === FRAME.HEADERS) this.#hpack.decode(payload, () => {});
    if ((type === FRAME.DATA || type === FRAME.HEADERS) && (flags & FLAG.END_STREAM) !== 0)
      this.#streams[id] = `${this.#bodies.get(id) ?? 0} bytes`;
    if (type === FRAME.PING && (flags & FLAG.ACK) !== 0 && payload.equals(MARK.subarray(FRAME_HEAD)))
      this.marks++;
    else this.others++;
  }

  told(end: string): Told {
    return { streams: this.#streams, end: this.#goAway === undefined ? end : `GOAWAY ${this.#goAway}` };
  }
}

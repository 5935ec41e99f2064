/** The same bytes to both servers of HTTP/2, in the same pieces; what each answers, in words that can be compared. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { LIMITS } from '../../src/rpc/limits.ts';
import { FLAG, FRAME, FRAME_HEAD } from '../../src/transport/http2/frames.ts';
import { HpackDecoder } from '../../src/transport/http2/hpack.ts';
import {
  ResponseHeaders,
  type ServerConnection,
  type ServerStream,
} from '../../src/transport/http2/transport.ts';
import { frame, PREFACE, SETTINGS } from '../attacks/attack.ts';
import { HTTP2_SERVER_NAMES, HTTP2_SERVERS, type Http2ServerName } from '../support/http2.ts';

/** Closes the sequence: its acknowledgement tells that everything before it was looked at. */
const MARK = Buffer.from('the end.');
const OK = new ResponseHeaders([[':status', '200']]);
const TRAILERS = new ResponseHeaders([['x-end', 'yes']]);

/** What came back: of each stream whether and with how many bytes it was answered, or how it was reset; and the end. */
export interface Told {
  readonly streams: Readonly<Record<number, string>>;
  /** The error of GOAWAY; 'open' when the connection still lives. */
  readonly end: string;
}

/** Both servers, each on a port; every request is answered with its body. */
export class Pair {
  readonly #servers: Server[] = [];
  readonly #ports = new Map<Http2ServerName, number>();
  readonly #connections = new Set<ServerConnection>();

  static async listen(): Promise<Pair> {
    const pair = new Pair();
    for (const name of HTTP2_SERVER_NAMES) {
      const server = createServer({ noDelay: true }, (socket) => {
        socket.on('error', () => socket.destroy());
        const connection = new HTTP2_SERVERS[name](socket, '', LIMITS, AROUND, 0);
        pair.#connections.add(connection);
        socket.on('close', () => pair.#connections.delete(connection));
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      pair.#servers.push(server);
      pair.#ports.set(name, (server.address() as AddressInfo).port);
    }
    return pair;
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy();
    for (const server of this.#servers) server.close();
  }

  async tell(name: Http2ServerName, frames: readonly Buffer[], cuts: readonly number[]): Promise<Told> {
    const socket = connect({ port: this.#ports.get(name) ?? 0, host: '127.0.0.1', noDelay: true });
    socket.on('error', () => {});
    const answers = new Answers(socket);
    await once(socket, 'connect');
    const bytes = Buffer.concat([PREFACE, SETTINGS, ...frames, frame(FRAME.PING, 0, 0, MARK)]);
    let at = 0;
    for (const cut of cuts) {
      if (at + cut >= bytes.length) break;
      socket.write(bytes.subarray(at, at + cut));
      at += cut;
      await new Promise((resolve) => setImmediate(resolve));
    }
    socket.write(bytes.subarray(at));
    const told = await answers.told();
    socket.destroy();
    return told;
  }
}

function answer(stream: ServerStream) {
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
  begin: answer,
  failed: (error: unknown) => {
    throw error;
  },
  holdUnread: () => true,
};

/** Reads what a server sends, until the mark is answered and the streams that were whole are, or the end. */
class Answers {
  readonly #streams: Record<number, string> = {};
  readonly #bodies = new Map<number, number>();
  readonly #hpack = new HpackDecoder();
  #goAway: number | undefined;
  #rest = Buffer.alloc(0);
  readonly #done: Promise<string>;

  constructor(socket: Socket) {
    this.#done = new Promise((resolve) => {
      socket.on('data', (chunk: Buffer) => {
        const marked = this.#read(chunk);
        // Node keeps the socket of a connection that nghttp2 has given up: the word of it is the end.
        if (this.#goAway !== undefined) resolve(`GOAWAY ${this.#goAway}`);
        if (!marked) return;
        // Node answers in later turns than it acknowledges: what it still has to say comes before the second mark.
        if (this.#marks === 1)
          setImmediate(() => setImmediate(() => socket.write(frame(FRAME.PING, 0, 0, MARK))));
        else resolve('open');
      });
      socket.on('close', () => resolve('closed'));
    });
  }

  #marks = 0;

  /** Whether a mark has come back. */
  #read(chunk: Buffer): boolean {
    let bytes = Buffer.concat([this.#rest, chunk]);
    let marked = false;
    while (bytes.length >= FRAME_HEAD && bytes.length >= FRAME_HEAD + bytes.readUIntBE(0, 3)) {
      const end = FRAME_HEAD + bytes.readUIntBE(0, 3);
      const id = bytes.readUInt32BE(5);
      if (this.#frame(bytes[3] ?? 0, bytes[4] ?? 0, id, bytes.subarray(FRAME_HEAD, end))) {
        this.#marks++;
        marked = true;
      }
      bytes = bytes.subarray(end);
    }
    this.#rest = bytes;
    return marked;
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): boolean {
    if (type === FRAME.GOAWAY) this.#goAway = payload.readUInt32BE(4);
    if (type === FRAME.RST_STREAM) this.#streams[id] ??= `reset ${payload.readUInt32BE(0)}`;
    if (type === FRAME.DATA) this.#bodies.set(id, (this.#bodies.get(id) ?? 0) + payload.length);
    if (type === FRAME.HEADERS) this.#hpack.decode(payload, () => {});
    if ((type === FRAME.DATA || type === FRAME.HEADERS) && (flags & FLAG.END_STREAM) !== 0)
      this.#streams[id] = `${this.#bodies.get(id) ?? 0} bytes`;
    return type === FRAME.PING && (flags & FLAG.ACK) !== 0 && payload.equals(MARK);
  }

  async told(): Promise<Told> {
    const end = await this.#done;
    return { streams: this.#streams, end };
  }
}

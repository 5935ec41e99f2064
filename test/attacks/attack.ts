import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { FRAME, FRAME_HEAD, writeHead } from '../../src/transport/http2/frames.ts';
import { encodeHeaders } from '../../src/transport/http2/hpack.ts';

/** Where an attack goes, and how long it lasts. */
export interface Order {
  readonly name: string;
  readonly port: number;
  readonly tls: boolean;
  readonly ms: number;
}

/** One thing that a stranger without a credential can do to a port. */
export interface Attack {
  /** A sentence without its subject, which is the attacker. */
  readonly name: string;
  /** The CVE whose way this is. */
  readonly cve?: string;
  /** Of one transport of HTTP/2, or of what needs TLS. */
  readonly only?: 'TLS';
  readonly run: (attacker: Attacker) => Promise<void>;
}

export const nothing = Buffer.alloc(0);

/** The id of the i-th stream of a client; those of a flood begin anew. */
export const odd = (i: number) => (2 * i + 1) % 2 ** 31;

export function frame(type: number, flags: number, id: number, payload: Uint8Array = nothing): Buffer {
  const bytes = Buffer.alloc(FRAME_HEAD + payload.length);
  bytes.set(payload, writeHead(bytes, 0, payload.length, type, flags, id));
  return bytes;
}

export const uint32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
export const SETTINGS = frame(FRAME.SETTINGS, 0, 0);

/** SETTINGS with entries. */
export const settings = (...entries: readonly (readonly [number, number])[]) =>
  frame(
    FRAME.SETTINGS,
    0,
    0,
    Buffer.concat(entries.map(([name, value]) => Buffer.concat([uint32(name).subarray(2), uint32(value)]))),
  );

type Fields = readonly (readonly [string, string])[];

export const get = (path: string, ...more: Fields) =>
  encodeHeaders([[':method', 'GET'], [':scheme', 'http'], [':path', path], [':authority', 'a'], ...more]);
export const post = (path: string, ...more: Fields) =>
  encodeHeaders([[':method', 'POST'], [':scheme', 'http'], [':path', path], [':authority', 'a'], ...more]);
export const grpc = (path: string, ...more: Fields) =>
  post(path, ['content-type', 'application/grpc'], ['te', 'trailers'], ...more);

export const REVOKE_OWN = '/apikey.v1.ApiKeyAuth/RevokeOwnKey';
export const VALIDATE = '/apikey.v1.ApiKeyAuth/ValidateKey';

/** A peer that has connections and time, and nothing else. */
export class Attacker {
  readonly #order: Order;
  readonly #sockets = new Set<Socket>();
  readonly #over: Promise<void>;
  #now = true;
  #opened = 0;

  constructor(order: Order) {
    this.#order = order;
    this.#over = new Promise((resolve) =>
      setTimeout(() => {
        this.#now = false;
        resolve();
      }, order.ms),
    );
  }

  get going(): boolean {
    return this.#now;
  }

  /** Keeps what it has until the attack is over. */
  async hold(): Promise<void> {
    await this.#over;
  }

  /** A connection, with TLS where the port speaks it. Those of one attack come from a hundred addresses. */
  async open(protocol: 'h2' | 'http/1.1' = 'h2'): Promise<Socket> {
    const { port, tls } = this.#order;
    const localAddress = `127.0.0.${100 + (this.#opened++ % 100)}`;
    const to = { port, host: '127.0.0.1', localAddress };
    const socket = tls
      ? connectTls({ ...to, rejectUnauthorized: false, ALPNProtocols: [protocol] })
      : connectTcp(to);
    return this.#keep(socket, tls ? 'secureConnect' : 'connect');
  }

  /** Without TLS, whatever the port speaks. */
  async openTcp(): Promise<Socket> {
    return this.#keep(
      connectTcp({ port: this.#order.port, host: '127.0.0.1', localAddress: '127.0.0.99' }),
      'connect',
    );
  }

  /** One that has said what HTTP/2 begins with. */
  async openHttp2(first: Buffer = SETTINGS): Promise<Socket> {
    const socket = await this.open('h2');
    await this.send(socket, Buffer.concat([PREFACE, first]));
    return socket;
  }

  async #keep(socket: Socket, ready: string): Promise<Socket> {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    socket.resume();
    await this.#first(socket, ready);
    return socket;
  }

  /** Sends when the other side takes it; false when it does not any more, or the time is over. */
  async send(socket: Socket, bytes: Uint8Array | string): Promise<boolean> {
    if (socket.destroyed || !this.going) return false;
    if (!socket.write(bytes)) await this.#first(socket, 'drain');
    return !socket.destroyed && this.going;
  }

  /** On one connection after the other, as often as the time allows: batches of what `make` gives for 0, 1, 2, … */
  async flood(make: (i: number) => Buffer, first: Buffer = SETTINGS, connections = 100): Promise<void> {
    for (let opened = 0; opened < connections && this.going; opened++) {
      const socket = await this.openHttp2(first);
      let i = 0;
      for (let goes = true; goes; ) {
        const batch: Buffer[] = [];
        for (let bytes = 0; bytes < 32_768; ) bytes += batch[batch.push(make(i++)) - 1]?.length ?? 1;
        goes = await this.send(socket, Buffer.concat(batch));
        // Another turn of the loop, for answers that end the connection.
        await new Promise((resolve) => setImmediate(resolve));
      }
      socket.destroy();
    }
  }

  /** So many connections at once, each doing the same, kept until the attack is over. */
  async many(connections: number, each: (i: number) => Promise<unknown>): Promise<void> {
    const lanes = Array.from({ length: Math.min(50, connections) }, async (_, lane) => {
      for (let i = lane; i < connections && this.going; i += 50) await each(i);
    });
    await Promise.all(lanes);
    await this.hold();
  }

  #first(socket: Socket, event: string): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        socket.off(event, done);
        socket.off('close', done);
        resolve();
      };
      socket.once(event, done);
      socket.once('close', done);
      void this.#over.then(done);
      if (socket.destroyed) done();
    });
  }

  end(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

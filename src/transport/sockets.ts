import type { Socket } from 'node:net';
import { LIMITS } from '../rpc/limits.ts';
import { networkOf, peerIpOf } from './peer.ts';

/** The bytes sent so far, and since when none was sent. */
interface Progress {
  sent: number;
  since: number;
}

/** The sockets of a listener. Limits them per address, and ends those that send nothing or do not read. */
export class Sockets {
  readonly #accepted = new Set<Socket>();
  readonly #perNetwork = new Map<string, number>();
  /** The sockets with a known protocol; with TLS not the accepted socket, but the one over it. */
  readonly #speaking = new Map<Socket, Progress>();
  /** The sockets whose protocol is not known yet, by their addresses and ports. */
  readonly #silent = new Map<string, { readonly socket: Socket; readonly until: number }>();
  #refused = 0;

  get count(): number {
    return this.#accepted.size;
  }

  /** Sockets refused since the start by the limit per address. */
  get refused(): number {
    return this.#refused;
  }

  /**
   * Counts a socket, or ends it if its address has too many.
   * @param until the time by which its protocol must be known: with TLS, the end of the handshake
   */
  accept(socket: Socket, until: number): void {
    socket.on('error', () => socket.destroy());
    const network = networkOf(peerIpOf(socket.remoteAddress));
    const before = this.#perNetwork.get(network) ?? 0;
    if (before >= LIMITS.connectionsPerAddress) {
      socket.destroy();
      this.#refused++;
      return;
    }
    this.#perNetwork.set(network, before + 1);
    this.#accepted.add(socket);
    const ends = endsOf(socket);
    this.#silent.set(ends, { socket, until });
    socket.once('close', () => {
      this.#silent.delete(ends);
      this.#accepted.delete(socket);
      const left = (this.#perNetwork.get(network) ?? 1) - 1;
      if (left > 0) this.#perNetwork.set(network, left);
      else this.#perNetwork.delete(network);
    });
  }

  speaks(socket: Socket, now: number): void {
    this.#silent.delete(endsOf(socket));
    this.#speaking.set(socket, { sent: 0, since: now });
    socket.once('close', () => this.#speaking.delete(socket));
  }

  /** Ends sockets that sent nothing, or whose peers have read nothing, for too long. */
  tick(now: number): void {
    for (const { socket, until } of this.#silent.values()) if (now > until) socket.destroy();
    for (const [socket, progress] of this.#speaking) {
      const unsent = socket.writableLength;
      const sent = socket.bytesWritten - unsent;
      if (unsent === 0 || sent !== progress.sent) {
        progress.sent = sent;
        progress.since = now;
      } else if (now - progress.since > LIMITS.unreadResponseMs) socket.destroy();
    }
  }

  close(): void {
    for (const socket of this.#accepted) socket.destroy();
  }
}

/** An id that is the same for an accepted socket and its TLS socket. */
function endsOf({ localAddress, localPort, remoteAddress, remotePort }: Socket): string {
  return `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`;
}

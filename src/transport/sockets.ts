import type { Socket } from 'node:net';
import { LIMITS } from '../rpc/limits.ts';
import { networkOf, peerIpOf } from './peer.ts';

/** What was left to send, and since when nothing of it has left. */
interface Progress {
  sent: number;
  since: number;
}

/** All sockets of a listener: so many of one address, none that says nothing, and none whose peer does not read. */
export class Sockets {
  readonly #accepted = new Set<Socket>();
  readonly #perNetwork = new Map<string, number>();
  /** Those that speak: with TLS another object than the one that was accepted. */
  readonly #speaking = new Map<Socket, Progress>();
  /** Those that have not said yet what they speak, by their ends. */
  readonly #silent = new Map<string, { readonly socket: Socket; readonly until: number }>();
  #refused = 0;

  get count(): number {
    return this.#accepted.size;
  }

  /** One too many of their address, since the start. */
  get refused(): number {
    return this.#refused;
  }

  /**
   * Ends a socket that is one too many of its address.
   * @param until when it must speak: with TLS its handshake comes first.
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

  /** Ends those that have said nothing, and those whose peers have read nothing, for too long. */
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

/** The same for a connection and for what TLS makes of it. */
function endsOf({ localAddress, localPort, remoteAddress, remotePort }: Socket): string {
  return `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`;
}

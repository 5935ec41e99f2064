import type { Socket } from 'node:net';
import { LIMITS } from '../rpc/limits.ts';
import { networkOf, peerIpOf } from './peer.ts';

/** What was left to send, and since when nothing of it has left. */
interface Progress {
  sent: number;
  since: number;
}

/** All sockets of a listener: so many of one address, and none whose peer does not read what waits for it. */
export class Sockets {
  readonly #accepted = new Set<Socket>();
  readonly #perNetwork = new Map<string, number>();
  /** Those that speak: with TLS another object than the one that was accepted. */
  readonly #speaking = new Map<Socket, Progress>();
  #refused = 0;

  get count(): number {
    return this.#accepted.size;
  }

  /** One too many of their address, since the start. */
  get refused(): number {
    return this.#refused;
  }

  /** Ends a socket that is one too many of its address. */
  accept(socket: Socket): void {
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
    socket.once('close', () => {
      this.#accepted.delete(socket);
      const left = (this.#perNetwork.get(network) ?? 1) - 1;
      if (left > 0) this.#perNetwork.set(network, left);
      else this.#perNetwork.delete(network);
    });
  }

  speaks(socket: Socket, now: number): void {
    this.#speaking.set(socket, { sent: 0, since: now });
    socket.once('close', () => this.#speaking.delete(socket));
  }

  /** Ends those whose peers have read nothing for too long. */
  tick(now: number): void {
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

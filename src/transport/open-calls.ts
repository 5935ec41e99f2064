import { Code, ConnectError } from '@connectrpc/connect';
import { LIMITS } from '../rpc/limits.ts';
import { networkOf } from './peer.ts';

/** Limits calls of health and reflection per network and in total: they need no credential and may be long. */
export class OpenCalls {
  readonly #perNetwork = new Map<string, number>();
  #all = 0;

  /** Counts a call; the returned function ends it. @throws ConnectError */
  begin(peerIp: string): () => void {
    const network = networkOf(peerIp);
    const before = this.#perNetwork.get(network) ?? 0;
    const { openCalls } = LIMITS;
    if (before >= openCalls.network || this.#all >= openCalls.all)
      throw new ConnectError('too many of these calls at once', Code.ResourceExhausted);
    this.#perNetwork.set(network, before + 1);
    this.#all++;
    return () => {
      this.#all--;
      const left = (this.#perNetwork.get(network) ?? 1) - 1;
      if (left > 0) this.#perNetwork.set(network, left);
      else this.#perNetwork.delete(network);
    };
  }
}

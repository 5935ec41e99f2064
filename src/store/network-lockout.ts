import { networkOf } from '../keys/ip.ts';
import type { Lockout } from '../keys/ports/limits.ts';

/** Counts and locks IPv6 by network: a client with one IPv6 address usually has 2^64 of them. */
export class NetworkLockout implements Lockout {
  readonly #inner: Lockout;

  constructor(inner: Lockout) {
    this.#inner = inner;
  }

  lockedForMs: Lockout['lockedForMs'] = (ip) => this.#inner.lockedForMs(networkOf(ip));
  readLockedForMs: Lockout['readLockedForMs'] = (ip) => this.#inner.readLockedForMs(networkOf(ip));
  fail: Lockout['fail'] = (ip) => this.#inner.fail(networkOf(ip));
  clear: Lockout['clear'] = (ip) => this.#inner.clear(networkOf(ip));
  list: Lockout['list'] = (page) => this.#inner.list(page);
  count: Lockout['count'] = () => this.#inner.count();
}

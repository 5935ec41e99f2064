import { isIP, SocketAddress } from 'node:net';

/** A header of the request by its lower-case name; several of one name are joined by commas. */
export type HeaderOf = (name: string) => string | undefined;

const BEARER = /^bearer(?: +(.*))?$/is;
const SEGMENT = /^[A-Za-z0-9_.-]+$/;
const MAX_COST = 1_000_000_000;
/** Longer texts are never parsed as an address. */
const MAX_ADDRESS = 128;

/** The requirements of a route. */
export interface Route {
  /** The scope that the request needs, such as `traces:read`; without one any valid key is accepted. */
  readonly scope?: string;
  /** How much a request consumes of each limit of the key: 1 to 1 000 000 000; default 1. */
  readonly cost?: number;
}

/** @throws TypeError that names the invalid option */
export function checkRoute({ scope, cost = 1 }: Route): void {
  if (scope !== undefined && (scope.length > 1024 || !scope.split(':').every((part) => SEGMENT.test(part))))
    throw new TypeError('scope: segments of letters, digits, "_", "." and "-", joined by ":"');
  if (!Number.isInteger(cost) || cost < 1 || cost > MAX_COST)
    throw new TypeError(`cost: a whole number from 1 to ${MAX_COST}`);
}

/** The client's key, from the first of these headers that is present; undefined when none is. */
export function keyIn(header: HeaderOf, names: readonly string[]): string | undefined {
  for (const name of names) {
    const value = header(name);
    if (value === undefined) continue;
    if (name !== 'authorization') return value;
    // Other schemes, such as Basic, are for the handler.
    const bearer = BEARER.exec(value);
    if (bearer !== null) return bearer[1] ?? '';
  }
  return undefined;
}

/** The client's request id, if the server accepts it. */
export function requestIdIn(header: HeaderOf): string {
  const id = header('x-request-id') ?? '';
  return /^[\x20-\x7e]{1,1024}$/.test(id) ? id : '';
}

/**
 * The nth entry of `x-forwarded-for` from the right, which the nth proxy has written: the client cannot forge it.
 * Undefined when there are fewer entries, or the entry is no address.
 */
export function addressFromRight(forwardedFor: string, n: number): string | undefined {
  const entry = forwardedFor.split(',').at(-n);
  return entry === undefined ? undefined : addressIn(entry);
}

/** An address as proxies write it, with or without port and zone; undefined for anything else. */
export function addressIn(text: string): string | undefined {
  const trimmed = text.trim();
  if (trimmed.length > MAX_ADDRESS) return undefined;
  const bare =
    /^(\d+\.\d+\.\d+\.\d+):\d{1,5}$/.exec(trimmed)?.[1] ??
    /^\[([^[\]]+)\](?::\d{1,5})?$/.exec(trimmed)?.[1] ??
    trimmed;
  const address = bare.includes(':') ? bare.replace(/%[\w.~-]{1,64}$/, '') : bare;
  const version = isIP(address);
  if (version !== 6) return version === 0 ? undefined : address;
  const canonical = new SocketAddress({ address, family: 'ipv6' }).address;
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(canonical)?.[1] ?? address;
}

import { normalizeIp } from '../keys/ip.ts';

/** The address of a socket, normalised; '' when there is none (a closed socket). */
export function peerIpOf(address: string | undefined): string {
  return address === undefined ? '' : (normalizeIp(address) ?? '');
}

/** Whose limits a normalised address shares: an address of IPv4 has its own, one of IPv6 those of its /64. */
export function networkOf(ip: string): string {
  if (!ip.includes(':')) return ip;
  const [before = [], after = []] = ip
    .split('::')
    .map((part) => part.split(':').filter((word) => word !== ''));
  const zeros = Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0');
  return `${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`;
}

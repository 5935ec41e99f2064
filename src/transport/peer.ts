import { normalizeIp } from '../keys/ip.ts';

/** The normalised address of a socket; '' when it is closed. */
export function peerIpOf(address: string | undefined): string {
  return address === undefined ? '' : (normalizeIp(address) ?? '');
}

/** The network whose limits a normalised address shares: an IPv4 address alone, for IPv6 its /64. */
export function networkOf(ip: string): string {
  if (!ip.includes(':')) return ip;
  const [before = [], after = []] = ip
    .split('::')
    .map((part) => part.split(':').filter((word) => word !== ''));
  const zeros = Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0');
  return `${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`;
}

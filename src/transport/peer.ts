import { normalizeIp } from '../keys/ip.ts';

/** The address of a socket, normalised; '' when there is none (a closed socket). */
export function peerIpOf(address: string | undefined): string {
  return address === undefined ? '' : (normalizeIp(address) ?? '');
}

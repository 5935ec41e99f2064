import { normalizeIp } from '../keys/ip.ts';

/** The address of a socket, normalised; '' when there is none (a closed socket). */
export function peerIpOf(address: string | undefined): string {
  return address === undefined ? '' : (normalizeIp(address) ?? '');
}

/** The same out of what grpc-js says of a peer: `address:port`, a v6 address without brackets. */
export function peerIpOfGrpc(peer: string): string {
  return peerIpOf(peer.slice(0, peer.lastIndexOf(':')));
}

import { BlockList, isIP, SocketAddress } from 'node:net';

const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/;

/** The canonical text of an address, `::ffff:a.b.c.d` as a.b.c.d; undefined for anything else (zones too). */
export function normalizeIp(text: string): string | undefined {
  const version = isIP(text);
  if (version === 4) return text;
  if (version !== 6 || text.includes('%')) return undefined;
  const canonical = new SocketAddress({ address: text, family: 'ipv6' }).address;
  return MAPPED.exec(canonical)?.[1] ?? canonical;
}

/** The canonical text of a CIDR or a bare address (= one host); undefined for anything else. */
export function normalizeCidr(text: string): string | undefined {
  const [address = '', prefix, ...rest] = text.split('/');
  const ip = normalizeIp(address);
  if (ip === undefined || rest.length > 0) return undefined;
  if (prefix !== undefined && !/^\d{1,3}$/.test(prefix)) return undefined;
  const bits = isIP(ip) === 4 ? 32 : 128;
  const mapped = bits === 32 && isIP(address) === 6;
  const length = prefix === undefined ? bits : Number(prefix) - (mapped ? 96 : 0);
  return length >= 0 && length <= bits ? `${ip}/${length}` : undefined;
}

/**
 * The subscriber that an address stands for in lockouts and limits: an IPv4 address itself, or an IPv6 /64.
 * @param ip in the form that normalizeIp gives
 */
export function networkOf(ip: string): string {
  if (!ip.includes(':')) return ip;
  const [head = '', tail] = ip.split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const last = tail === '' ? [] : tail.split(':');
    while (groups.length + last.length < 8) groups.push('0');
    groups.push(...last);
  }
  return `${normalizeIp(`${groups.slice(0, 4).join(':')}::`) ?? ip}/64`;
}

/** A key's allow-list, compiled at its first use. Empty means any address. */
export class IpAllowlist {
  readonly cidrs: readonly string[];
  /** One list per family, since Node's BlockList takes an IPv4 address as part of ::/0. */
  #compiled: { readonly ipv4: BlockList; readonly ipv6: BlockList } | undefined;

  /** @param cidrs in the form that normalizeCidr gives. */
  constructor(cidrs: readonly string[]) {
    this.cidrs = cidrs;
  }

  /** True when the list is empty, or when the (normalised) address is known and listed. */
  allows(ip: string | undefined): boolean {
    if (this.cidrs.length === 0) return true;
    if (ip === undefined) return false;
    this.#compiled ??= compile(this.cidrs);
    const family = isIP(ip) === 6 ? 'ipv6' : 'ipv4';
    return this.#compiled[family].check(ip, family);
  }
}

function compile(cidrs: readonly string[]) {
  const lists = { ipv4: new BlockList(), ipv6: new BlockList() };
  for (const cidr of cidrs) {
    const [address = '', length] = cidr.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    lists[family].addSubnet(address, Number(length), family);
  }
  return lists;
}

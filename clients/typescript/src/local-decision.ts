import { BlockList, isIP, SocketAddress } from 'node:net';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { Decision, type ValidateKeyResponse } from '../../../gen/apikey/v1/auth_pb.ts';
import { SecretSlot } from '../../../gen/apikey/v1/key_pb.ts';

/** The facts of a key, ready for decisions. Times are milliseconds since 1970, by the server's clock. */
export interface LocalFacts {
  readonly scopes: readonly string[];
  readonly allowlist: { readonly ipv4: BlockList; readonly ipv6: BlockList } | undefined;
  readonly expired: boolean;
  readonly expireTime: number;
  readonly secretEnd: number;
}

/** Undefined when the answer has no facts. */
export function factsIn({ facts }: ValidateKeyResponse): LocalFacts | undefined {
  if (facts === undefined) return undefined;
  const { scopes, ipAllowlist, expired, expireTime, secretSlot, previousSecretExpireTime } = facts;
  const previous = secretSlot === SecretSlot.PREVIOUS;
  if (previous && previousSecretExpireTime === undefined) return undefined;
  return {
    scopes,
    allowlist: ipAllowlist.length === 0 ? undefined : compile(ipAllowlist),
    expired,
    expireTime: expireTime === undefined ? Number.POSITIVE_INFINITY : timestampMs(expireTime),
    secretEnd:
      previous && previousSecretExpireTime !== undefined
        ? timestampMs(previousSecretExpireTime)
        : Number.POSITIVE_INFINITY,
  };
}

/** The rules of the server in their order. @param clientIp '' for unknown; @param now by the server's clock */
export function decide(
  facts: LocalFacts,
  grant: string | undefined,
  clientIp: string,
  now: number,
): Decision {
  if (facts.expired || now >= facts.expireTime) return Decision.EXPIRED;
  if (now >= facts.secretEnd) return Decision.ROTATED;
  if (facts.allowlist !== undefined && !allows(facts.allowlist, clientIp)) return Decision.IP_NOT_ALLOWED;
  return grant === undefined ? Decision.INSUFFICIENT_SCOPE : Decision.VALID;
}

/** The first grant that covers the scope; '' for no scope; undefined when none does. */
export function grantFor(grants: readonly string[], scope: string | undefined): string | undefined {
  if (scope === undefined) return '';
  const control = isControl(scope);
  return grants.find((grant) => (!control || isControl(grant)) && covers(grant, scope));
}

const isControl = (scope: string) => scope === 'apikeys' || scope.startsWith('apikeys:');

function covers(grant: string, scope: string): boolean {
  if (grant === scope || grant === '*') return true;
  const [have, want] = [grant.split(':'), scope.split(':')];
  return have.length === want.length && have.every((part, i) => part === '*' || part === want[i]);
}

function allows({ ipv4, ipv6 }: NonNullable<LocalFacts['allowlist']>, ip: string): boolean {
  const version = isIP(ip);
  return version === 4 ? ipv4.check(ip, 'ipv4') : version === 6 && ipv6.check(ip, 'ipv6');
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

/** The form in which the server names locked addresses: an IPv4 address itself, or the /64 of an IPv6 address. */
export function lockedFormOf(ip: string): string {
  if (!ip.includes(':')) return ip;
  const canonical = new SocketAddress({ address: ip, family: 'ipv6' }).address;
  const [head = '', tail] = canonical.split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const last = tail === '' ? [] : tail.split(':');
    while (groups.length + last.length < 8) groups.push('0');
    groups.push(...last);
  }
  const network = `${groups.slice(0, 4).join(':')}::`;
  return `${new SocketAddress({ address: network, family: 'ipv6' }).address}/64`;
}

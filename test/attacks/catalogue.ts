import type { Attack } from './attack.ts';
import { http1Attacks } from './http1.ts';
import { http2Floods } from './http2-floods.ts';
import { http2Lies } from './http2-lies.ts';
import { memoryAttacks } from './memory.ts';
import { slowAttacks } from './slow.ts';

export const ATTACKS: readonly Attack[] = [
  ...http2Floods,
  ...http2Lies,
  ...memoryAttacks,
  ...slowAttacks,
  ...http1Attacks,
];

/**
 * Attacks that harm others still: what has not arrived has no budget yet, and gzip is unpacked before the credential is
 * looked at. The long run shows them; each leaves this list with its mending.
 */
export const PENDING: ReadonlySet<string> = new Set([
  ...memoryAttacks.slice(1).map(({ name }) => name),
  ...http2Floods.map(({ name }) => name).filter((name) => name.endsWith('(MadeYouReset)')),
  'begins a message of gRPC and waits, on 5 000 streams',
  'sends gzip of JSON over HTTP/1.1',
]);

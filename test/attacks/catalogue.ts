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

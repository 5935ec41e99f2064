export async function peers(): Promise<Answered> {
  return { text: '', facts: {} };
}

import type { Answered } from './measure.ts';

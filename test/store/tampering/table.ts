import { CHAIN_TAMPERINGS } from './chains.ts';
import { EVENT_TAMPERINGS } from './events.ts';
import type { Tampering } from './scene.ts';

/** THE table of what can be done to the audit behind the back of a server that is down. */
export const TAMPERINGS: readonly Tampering[] = [...EVENT_TAMPERINGS, ...CHAIN_TAMPERINGS];

/** Loaded before the server by rollups.ts: decisions are not counted. */
import { UsageCounter } from '../../src/audit/usage-counter.ts';

UsageCounter.prototype.add = () => {};

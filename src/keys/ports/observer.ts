import type { Decision } from '../check.ts';
import type { FoundSlot, Key } from '../key.ts';
import type { RotationStart } from '../rotation.ts';

/** A decision that was made and recorded. */
export interface Decided {
  readonly decision: Decision;
  readonly key: Key | undefined;
  readonly slot: FoundSlot | undefined;
  readonly clientIp: string | undefined;
  readonly dryRun: boolean;
  /** The time it was made at. */
  readonly time: number;
}

/** What is told about what happened, for metrics, logs and alerts. Never slows a call: returns at once. */
export interface Observer {
  decided(decided: Decided): void;
  rotated(key: Key, rotation: RotationStart): void;
  lockedOut(clientIp: string, forMs: number): void;
  /** A calling key's secret that is not the current one was used as a credential. */
  oldCredential(decided: Decided): void;
}

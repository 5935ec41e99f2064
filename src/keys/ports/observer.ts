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
  /** The time that the decision was made for. */
  readonly time: number;
}

/** Receives events for metrics, logs and alerts. Implementations return at once and never slow a call. */
export interface Observer {
  decided(decided: Decided): void;
  rotated(key: Key, rotation: RotationStart): void;
  lockedOut(clientIp: string, forMs: number): void;
  /** A calling key authenticated with a secret that is not its current one. */
  oldCredential(decided: Decided): void;
}

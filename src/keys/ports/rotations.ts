import type { RotationStart } from '../rotation.ts';
import type { Page, Paged } from './page.ts';

/** A rotation as stored. */
export interface RotationRecord extends RotationStart {
  readonly oldUses: number;
  readonly lastOldUseTime: number | undefined;
  /** '' when unknown. */
  readonly lastOldUseIp: string;
}

/** Uses of one rotation's old secret. */
export interface OldUses {
  readonly uses: number;
  readonly lastTime: number;
  readonly lastIp: string;
}

export interface RotationLog {
  /** Newest first. */
  list(filter: { readonly keyId?: string }, page: Page): Promise<Paged<RotationRecord>>;
  /** Uses of the old secrets of these rotations; those without uses are left out. */
  oldUses(rotationIds: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** Adds uses. Not a change: no revision. */
  addOldUses(uses: ReadonlyMap<string, OldUses>): Promise<void>;
  /** Notes that the grace has ended; true once per rotation, on one process only. */
  noteGraceEnded(rotationId: string): Promise<boolean>;
}

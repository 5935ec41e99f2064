import type { RotationStart } from '../rotation.ts';
import type { Page, Paged } from './page.ts';

/** A rotation as it is remembered. */
export interface RotationRecord extends RotationStart {
  readonly oldUses: number;
  readonly lastOldUseTime: number | undefined;
  /** '' when not known. */
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
  /** Uses of the old secrets of these rotations; those without any are left out. */
  oldUses(rotationIds: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** Adds uses. Not a change. */
  addOldUses(uses: ReadonlyMap<string, OldUses>): Promise<void>;
  /** True once for a rotation, on one process: its grace has ended. */
  noteGraceEnded(rotationId: string): Promise<boolean>;
}

/** How far a backup is. */
export interface BackupProgress {
  readonly doneBytes: number;
  /** 0 while it is not known. */
  readonly totalBytes: number;
}

/** A backup that is whole and on the disk. */
export interface MadeBackup {
  /** Of the file, without a folder. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Every change up to this revision is in it. */
  readonly revision: number;
  /** Milliseconds since 1970: the moment that it holds. */
  readonly createTime: number;
}

/** A backup that is being written. */
export interface BackupUnderWay {
  /** Rejects with BACKUP_EXISTS or BACKUP_NOT_WRITTEN, and then nothing of it is left. */
  readonly made: Promise<MadeBackup>;
  readonly progress: BackupProgress;
  /** Gives it up, if it is not made yet. */
  giveUp(): void;
}

export interface Backups {
  /** @param name one that isBackupName accepts. @throws BACKUP_OFF, BACKUP_NOT_HERE, BACKUP_EXISTS, BACKUP_UNDER_WAY */
  begin(name: string): BackupUnderWay;
}

/** A bare name: nothing of it leads out of the folder, or hides. */
export function isBackupName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(name);
}

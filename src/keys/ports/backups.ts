/** Progress of a backup. */
export interface BackupProgress {
  readonly doneBytes: number;
  /** 0 while unknown. */
  readonly totalBytes: number;
}

/** A backup that is complete and on disk. */
export interface MadeBackup {
  /** The file's name, without a folder. */
  readonly name: string;
  readonly sizeBytes: number;
  /** The backup contains every change up to this revision. */
  readonly revision: number;
  /** Milliseconds since 1970: the moment that the backup shows. */
  readonly createTime: number;
}

/** A backup that is being written. */
export interface BackupUnderWay {
  /** Rejects with BACKUP_EXISTS or BACKUP_NOT_WRITTEN, and then leaves no file. */
  readonly made: Promise<MadeBackup>;
  readonly progress: BackupProgress;
  /** Cancels the backup, unless it is complete. */
  giveUp(): void;
}

export interface Backups {
  /** @param name one that isBackupName accepts. @throws BACKUP_OFF, BACKUP_NOT_HERE, BACKUP_EXISTS, BACKUP_UNDER_WAY */
  begin(name: string): BackupUnderWay;
}

/** A bare name: no path out of the folder, no hidden file. */
export function isBackupName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(name);
}

import { lstatSync } from 'node:fs';
import { link, open, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { synced } from '../audit/synced.ts';
import { ApiError } from '../keys/errors.ts';
import type { Backups, BackupUnderWay, MadeBackup } from '../keys/ports/backups.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Store } from '../store/store.ts';
import { checksumFileOf, sha256Of } from './checksum.ts';

export interface BackupFolderParts {
  /** BACKUP_DIR; '' when unset. */
  readonly folder: string;
  readonly copyTo: Store['copyTo'];
  readonly clock: Clock;
}

/** Backups in a folder of the server's machine. A file gets its final name only when it is complete and on disk. */
export class BackupFolder implements Backups {
  readonly #parts: BackupFolderParts;
  #underWay: BackupUnderWay | undefined;

  constructor(parts: BackupFolderParts) {
    this.#parts = parts;
  }

  begin(name: string): BackupUnderWay {
    const { folder, copyTo } = this.#parts;
    if (copyTo === undefined) {
      const text = 'a store on MongoDB is backed up with its own tools: docs/runbooks.md, "Restore"';
      throw new ApiError('BACKUP_NOT_HERE', text);
    }
    if (folder === '') {
      const metadata = { setting: 'BACKUP_DIR' };
      throw new ApiError('BACKUP_OFF', 'BACKUP_DIR is not set where the server runs', { metadata });
    }
    if (lstatSync(join(folder, name), { throwIfNoEntry: false }) !== undefined) throw exists(name);
    if (this.#underWay !== undefined)
      throw new ApiError('BACKUP_UNDER_WAY', 'another backup is being written');
    const job = new Job(name);
    const made = this.#make(job, copyTo).finally(() => {
      this.#underWay = undefined;
    });
    // The caller may have gone, leaving the rejection without a handler.
    made.catch(() => {});
    this.#underWay = Object.assign(job, { made });
    return this.#underWay;
  }

  /** Cancels the backup under way; resolves when its files are removed. */
  async stop(): Promise<void> {
    this.#underWay?.giveUp();
    await this.#underWay?.made.catch(() => {});
  }

  async #make(job: Job, copyTo: NonNullable<Store['copyTo']>): Promise<MadeBackup> {
    const { folder, clock } = this.#parts;
    const target = join(folder, job.name);
    const partial = join(folder, `.${job.name}.partial`);
    const createTime = clock.now();
    try {
      // A crash may have left a partial file.
      await discard(partial);
      await (await open(partial, 'wx', 0o600)).close();
      const { revision } = await copyTo(partial, (doneBytes, totalBytes) => job.at(doneBytes, totalBytes));
      await synced(partial);
      const { size: sizeBytes } = await stat(partial);
      await writeChecksum(partial, target);
      job.mayGoOn();
      // Unlike a rename, link does not replace a file that appeared meanwhile.
      await link(partial, target);
      await discard(partial);
      await synced(folder);
      return { name: job.name, sizeBytes, revision, createTime };
    } catch (error) {
      await discard(partial).catch(() => {});
      throw asBackupError(error, job.name);
    }
  }
}

class Job {
  readonly name: string;
  progress = { doneBytes: 0, totalBytes: 0 };
  #givenUp = false;

  constructor(name: string) {
    this.name = name;
  }

  giveUp(): void {
    this.#givenUp = true;
  }

  at(doneBytes: number, totalBytes: number): void {
    this.mayGoOn();
    this.progress = { doneBytes, totalBytes };
  }

  mayGoOn(): void {
    if (this.#givenUp) throw new ApiError('BACKUP_NOT_WRITTEN', 'the backup was given up');
  }
}

/** In the format of sha256sum, so that a damaged file is detected before it is restored. */
async function writeChecksum(partial: string, target: string): Promise<void> {
  const handle = await open(checksumFileOf(target), 'w', 0o600);
  try {
    await handle.writeFile(`${await sha256Of(partial)}  ${basename(target)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Removes the partial file and SQLite's files beside it. */
async function discard(partial: string): Promise<void> {
  for (const end of ['', '-journal', '-wal', '-shm']) await rm(`${partial}${end}`, { force: true });
}

function exists(name: string): ApiError {
  return new ApiError('BACKUP_EXISTS', `there is a file ${name} in BACKUP_DIR already`);
}

/** Omits the path of the folder, which clients need not know. */
function asBackupError(error: unknown, name: string): ApiError {
  if (error instanceof ApiError) return error;
  const { code, message, syscall } = error as NodeJS.ErrnoException;
  if (code === 'EEXIST' && syscall === 'link') return exists(name);
  const why = syscall === undefined ? message : code;
  return new ApiError('BACKUP_NOT_WRITTEN', `the backup cannot be written to BACKUP_DIR: ${why}`, {
    cause: error,
  });
}

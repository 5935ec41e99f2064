import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Backup } from '../../gen/apikey/v1/admin_pb.ts';
import { readConfig } from '../../src/config.ts';
import { type Restored, restore } from '../../src/server/restore.ts';
import { createLogger } from '../../src/server/telemetry.ts';
import { apikeyd } from '../support/process.ts';
import type { Clients, TestServer } from '../support/server.ts';
import { Place } from './place.ts';

/** A store with a chain key, hence an anchor, and a folder for backups. */
export class Restorable extends Place {
  readonly settings: Record<string, string>;

  constructor() {
    super('sqlite');
    const { folder } = this.database;
    writeFileSync(join(folder, 'chain.key'), 'k'.repeat(32));
    this.settings = { AUDIT_CHAIN_KEY_FILE: join(folder, 'chain.key'), BACKUP_DIR: folder };
  }

  get folder(): string {
    return this.database.folder;
  }

  get file(): string {
    return join(this.folder, 'one.backup');
  }

  get store(): string {
    return join(this.folder, 'apikeyd.db');
  }

  serve(): Promise<TestServer> {
    return this.start(this.settings);
  }

  command(...args: string[]) {
    return apikeyd(args, { env: { ...this.settings, STORE_URL: this.database.url } });
  }

  /** The same as the command, in this process. */
  restore(settings: Record<string, string> = {}, withoutLog = false, file = this.file): Promise<Restored> {
    const logger = createLogger('info', 'json', { write: (line: string) => void this.told.push(line) });
    const config = readConfig({ STORE_URL: this.database.url, ...this.settings, ...settings });
    return restore({ config, file, withoutLog, clock: this.clock, logger, told: () => {} });
  }

  readonly told: string[] = [];

  /** The files of the store in the folder. */
  leftovers(): string[] {
    return readdirSync(this.folder).filter((name) => /restoring|partial/.test(name));
  }
}

export async function backUp({ admin }: Clients, name = 'one.backup') {
  let made: Backup | undefined;
  for await (const { backup } of admin.createBackup({ name })) made = backup;
  return made;
}

import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type Finding, StartError } from '../store.ts';

/** What would stop a server from working on this file, looked at without changing it. @throws StartError */
export async function inspectSqlite(url: string): Promise<Finding[]> {
  const path = url.replace(/^sqlite:(\/\/)?/, '');
  let folder = dirname(path);
  while (!existsSync(folder)) folder = dirname(folder);
  try {
    if (!statSync(folder).isDirectory()) throw new Error(`${folder} is no folder`);
    accessSync(folder, constants.W_OK);
    if (!existsSync(path))
      return [{ what: 'store', ok: true, text: 'not there yet: the first start makes it' }];
    accessSync(path, constants.R_OK | constants.W_OK);
    const db = new DatabaseSync(path, { readOnly: true });
    const row = db.prepare('PRAGMA quick_check(1)').get();
    db.close();
    const ok = row?.quick_check === 'ok';
    return [{ what: 'store', ok, text: ok ? 'can be read and written' : `is damaged: ${row?.quick_check}` }];
  } catch (error) {
    throw new StartError(69, `STORE_URL: cannot use ${path}: ${(error as Error).message}`, error);
  }
}

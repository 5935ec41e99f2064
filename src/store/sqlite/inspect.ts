import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type Finding, StartError } from '../store.ts';
import { UnfitTexts } from '../unfit-texts.ts';

/** Finds problems that would stop a server from using this file, without changing it. @throws StartError */
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
    try {
      const row = db.prepare('PRAGMA quick_check(1)').get();
      if (row?.quick_check !== 'ok')
        return [{ what: 'store', ok: false, text: `is damaged: ${row?.quick_check}` }];
      return [{ what: 'store', ok: true, text: 'can be read and written' }, textsOf(db)];
    } finally {
      db.close();
    }
  } catch (error) {
    throw new StartError(69, `STORE_URL: cannot use ${path}: ${(error as Error).message}`, error);
  }
}

const TEXTS = ['name', 'owner_id', 'rate_limit_bucket', 'revoke_note', 'request_id', 'metadata'] as const;

/** Reads texts as bytes: as text, SQLite would end them at their first NUL. */
function textsOf(db: DatabaseSync): Finding {
  const found = new UnfitTexts();
  if (db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'api_keys'").get() === undefined)
    return found.finding;
  const columns = TEXTS.map((name) => `CAST(${name} AS BLOB) AS ${name}`).join(', ');
  for (const row of db.prepare(`SELECT id, ${columns} FROM api_keys`).iterate()) {
    const texts = TEXTS.map((name) => [name, Buffer.from((row[name] as Uint8Array | null) ?? []).toString()]);
    const { metadata, ...others } = Object.fromEntries(texts);
    found.add([String(row.id), { ...others, metadata: JSON.parse(metadata) }]);
  }
  return found.finding;
}

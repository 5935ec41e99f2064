import { backup, DatabaseSync } from 'node:sqlite';
import type { CopiedStore, CopyTold } from '../store.ts';

/** Pages per step, between which other work may run: about 10 ms of disk time. */
const PAGES_A_STEP = 1_000;

/**
 * Copies the store, as it is at the start, by SQLite's online backup. The copy reads from one snapshot: otherwise each
 * commit of the server would restart it. The store's write-ahead log grows until the copy is done.
 */
export async function copyStore(path: string, file: string, told: CopyTold): Promise<CopiedStore> {
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    db.exec('BEGIN');
    const revision = Number(
      db.prepare("SELECT value FROM api_key_meta WHERE id = 'revision'").get()?.value ?? 0,
    );
    const pageBytes = Number(db.prepare('PRAGMA page_size').get()?.page_size);
    const progress = ({ totalPages, remainingPages }: { totalPages: number; remainingPages: number }) =>
      told((totalPages - remainingPages) * pageBytes, totalPages * pageBytes);
    const pages = await backup(db, file, { rate: PAGES_A_STEP, progress });
    told(pages * pageBytes, pages * pageBytes);
    return { revision };
  } finally {
    db.close();
  }
}

import { backup, DatabaseSync } from 'node:sqlite';
import type { CopiedStore, CopyTold } from '../store.ts';

/** Pages between two looks at who waits: some 10 ms of a disk. */
const PAGES_A_STEP = 1_000;

/**
 * A copy of the store as it is at the beginning, made by SQLite's online backup. It reads on one snapshot: otherwise each
 * commit of the server would make it begin anew. The journal of the store grows until it is done.
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

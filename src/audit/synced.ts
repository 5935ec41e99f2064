import { open } from 'node:fs/promises';

/** Resolves when a file, or the names in a folder, are on the disk: a new file's name is there only when its folder is. */
export async function synced(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

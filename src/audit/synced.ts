import { open } from 'node:fs/promises';

/** Fsyncs a file or a folder: a new or renamed file is durable only once its folder is synced too. */
export async function synced(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

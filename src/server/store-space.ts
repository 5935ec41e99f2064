import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Bytes: used by the store, total on its disk, and free there for this user. */
export interface Space {
  readonly used: number;
  readonly size: number;
  readonly free: number;
}

/** The embedded store's disk space; undefined for a remote store, or when the system does not report it. */
export async function storeSpace(url: string): Promise<Space | undefined> {
  if (!url.startsWith('sqlite:')) return undefined;
  const path = url.replace(/^sqlite:(\/\/)?/, '');
  try {
    const sizes = await Promise.all(['', '-wal'].map((suffix) => stat(path + suffix).catch(() => undefined)));
    const { bsize, blocks, bavail } = await statfs(dirname(path));
    const used = sizes.reduce((sum, file) => sum + (file?.size ?? 0), 0);
    return { used, size: bsize * blocks, free: bsize * bavail };
  } catch {
    return undefined;
  }
}

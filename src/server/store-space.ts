import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Bytes: of the store, of its disk, and what is left there for this user. */
export interface Space {
  readonly used: number;
  readonly size: number;
  readonly free: number;
}

/** What the embedded store takes of its disk; undefined for a store elsewhere, and when nobody can tell. */
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

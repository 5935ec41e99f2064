import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';

/** The path of a backup's checksum file. */
export const checksumFileOf = (file: string): string => `${file}.sha256`;

/** SHA-256 of a file, 64 lower-case hex. */
export async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex');
}

/** Whether a file matches its checksum; undefined when it has none. */
export async function isAsWritten(file: string): Promise<boolean | undefined> {
  let wanted: string;
  try {
    wanted = await readFile(checksumFileOf(file), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  return wanted.slice(0, 64) === (await sha256Of(file));
}

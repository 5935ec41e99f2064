import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { type Chain, GENESIS } from '../audit/chain.ts';
import type { RetiredHash } from '../keys/narrowing.ts';
import type { RevocationRecord } from '../keys/ports/revocations.ts';
import { type Line, readLines, sealOf } from './revocation-lines.ts';
import type { LogReach } from './revocation-log.ts';

const CHUNK_BYTES = 65_536;

/** A file of sealed lines that is being written: its handle, its size and the last seal. */
export interface LinesFile {
  readonly handle: FileHandle;
  readonly size: number;
  readonly seal: string;
}

/** The lines with their seals as bytes, and the last seal. */
export function sealed(
  chain: Chain,
  before: string,
  lines: readonly Line[],
): { bytes: Buffer; seal: string } {
  let seal = before;
  const texts = lines.map((line) => {
    const text = JSON.stringify(line);
    seal = sealOf(chain, seal, text);
    return `${seal} ${text}\n`;
  });
  return { bytes: Buffer.from(texts.join('')), seal };
}

export async function writeAll(handle: FileHandle, bytes: Buffer, place: number): Promise<void> {
  for (let at = 0; at < bytes.length; )
    at += (await handle.write(bytes, at, bytes.length - at, place + at)).bytesWritten;
}

/** All known retired hashes of a line's key, those of the line included. */
export function mergedRetired(
  retired: Map<string, readonly RetiredHash[]>,
  { keyId, retired: own }: RevocationRecord,
): readonly RetiredHash[] {
  const before = retired.get(keyId) ?? [];
  if (own.length === 0) return before;
  const known = new Set(before.map(({ hash }) => hash));
  const all = [...before, ...own.filter(({ hash }) => !known.has(hash))];
  retired.set(keyId, all);
  return all;
}

/**
 * Replaces the file by one with only the newest line of each key, and every hash retired after `keptAfter`. The rename
 * is atomic; a failure leaves the file unchanged.
 */
export async function compacted(
  file: string,
  chain: Chain,
  reach: LogReach,
  keptAfter: number,
): Promise<LinesFile> {
  const next = `${file}.new`;
  const handle = await open(next, 'w', 0o600);
  try {
    const written = await writeNewest(handle, file, chain, reach, keptAfter);
    await handle.sync();
    await rename(next, file);
    return written;
  } catch (error) {
    await handle.close().catch(() => {});
    await rm(next, { force: true }).catch(() => {});
    throw error;
  }
}

async function writeNewest(
  handle: FileHandle,
  file: string,
  chain: Chain,
  { begins, covered }: LogReach,
  keptAfter: number,
): Promise<LinesFile> {
  const newest = new Map<string, { readonly number: number; readonly revision: number }>();
  const retired = new Map<string, readonly RetiredHash[]>();
  for await (const { line, number } of readLines(file, chain)) {
    if (line.kind !== 'key') continue;
    mergedRetired(retired, line);
    const { keyId, revision } = line;
    if (revision >= (newest.get(keyId)?.revision ?? 0)) newest.set(keyId, { number, revision });
  }
  let [size, seal] = [0, GENESIS];
  let waiting: Line[] = [{ kind: 'begin', revision: begins }];
  const write = async () => {
    const made = sealed(chain, seal, waiting);
    await writeAll(handle, made.bytes, size);
    size += made.bytes.length;
    seal = made.seal;
    waiting = [];
  };
  let read = 0;
  for await (const { line, number, end } of readLines(file, chain)) {
    if (line.kind === 'key' && newest.get(line.keyId)?.number === number) {
      const kept = (retired.get(line.keyId) ?? []).filter(({ time }) => time > keptAfter);
      waiting.push({ ...line, retired: kept });
    }
    if (end - read < CHUNK_BYTES) continue;
    read = end;
    await write();
  }
  waiting.push({ kind: 'cover', revision: covered });
  await write();
  return { handle, size, seal };
}

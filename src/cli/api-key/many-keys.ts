import { setTimeout as delay } from 'node:timers/promises';
import { toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { type ImportedKey, ImportedKeySchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { ErrorInfoSchema } from '../../../gen/google/rpc/error_details_pb.ts';
import { CliError, type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { Progress } from '../output.ts';
import type { FileKey, KeyFile } from './key-file.ts';

/** The largest number and size of the keys in one call. */
const CHUNK_KEYS = 1_000;
const CHUNK_BYTES = 900_000;
export const CHUNKS_AT_ONCE = 4;
const CALL_MS = 60_000;
const MAX_ATTEMPTS = 6;
const FIRST_WAIT_MS = 200;

export interface FileOptions extends ConnectionOptions {
  /** Owner of keys whose line has no owner. */
  readonly owner: string;
}

export function withOwner({ keys, problems }: KeyFile, owner: string): KeyFile {
  const owned = keys.map(({ line, key }) => ({ line, key: { ...key, ownerId: key.ownerId || owner } }));
  return { keys: owned, problems };
}

/** @throws CliError that names each wrong line */
export async function checkAll(
  clients: Clients,
  { keys, problems }: KeyFile,
  chunks: readonly (readonly FileKey[])[],
  nothing: string,
): Promise<void> {
  const found = [...problems, ...repeated(keys)];
  const progress = new Progress('checking', keys.length);
  let checked = 0;
  await each(chunks, CHUNKS_AT_ONCE, async (chunk) => {
    const { results } = await withRetries(() =>
      importKeys(
        clients,
        chunk.map(({ key }) => key),
        true,
      ),
    );
    // Repeated hashes are already reported, with both lines.
    for (const [i, { line }] of chunk.entries())
      for (const problem of results[i]?.problems ?? [])
        if (!problem.startsWith('key_hash: the same')) found.push(`${line}: ${problem}`);
    checked += chunk.length;
    progress.at(checked);
  });
  progress.end();
  if (found.length === 0) return;
  const lines = found.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  throw new CliError(
    EXIT.denied,
    `${nothing}: these lines are wrong\n${lines.map((text) => `  line ${text}`).join('\n')}`,
  );
}

/** Finds lines with the same hash, also in different chunks. */
function repeated(keys: readonly FileKey[]): string[] {
  const lines = new Map<string, number>();
  return keys.flatMap(({ line, key: { keyHash } }) => {
    const first = lines.get(keyHash);
    if (first === undefined) lines.set(keyHash, line);
    return first === undefined || keyHash === '' ? [] : [`${line}: key_hash: the same as in line ${first}`];
  });
}

export function importKeys({ admin }: Clients, keys: ImportedKey[], validateOnly: boolean) {
  return admin.importKeys({ keys, validateOnly }, { timeoutMs: CALL_MS });
}

export function chunksOf(keys: readonly FileKey[]): FileKey[][] {
  const chunks: FileKey[][] = [];
  let bytes = CHUNK_BYTES;
  for (const key of keys) {
    const size = toBinary(ImportedKeySchema, key.key).length + 8;
    const last = chunks.at(-1);
    if (last === undefined || last.length === CHUNK_KEYS || bytes + size > CHUNK_BYTES) {
      chunks.push([key]);
      bytes = size;
    } else {
      last.push(key);
      bytes += size;
    }
  }
  return chunks;
}

/** Works on at most `atOnce` items at a time. After a failure no item is started; running ones are awaited. */
export async function each<T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T, i: number) => Promise<void>,
) {
  let next = 0;
  const run = async () => {
    while (next < items.length) {
      const i = next++;
      try {
        await work(items[i] as T, i);
      } catch (error) {
        next = items.length;
        throw error;
      }
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: Math.min(atOnce, items.length) }, run));
  const failed = ended.find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

const PASSING = new Set([Code.Unavailable, Code.ResourceExhausted, Code.Aborted]);

/** Only for calls that may be repeated: hashes identify an import, a request_id a creation. */
export async function withRetries<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const failure = ConnectError.from(error);
      // An error without an ErrorInfo is from the transport: no server is reachable.
      const ours = failure.findDetails(ErrorInfoSchema).length > 0;
      if (attempt === MAX_ATTEMPTS || !ours || !PASSING.has(failure.code)) throw error;
      await delay(FIRST_WAIT_MS * 2 ** attempt * (0.5 + Math.random()));
    }
  }
}

export function interrupted(error: unknown, soFar: string): CliError | unknown {
  const failure = ConnectError.from(error);
  const text = `${failure.rawMessage}: ${soFar}; run the same command again to go on`;
  return new CliError(failure.code === Code.Unavailable ? EXIT.unreachable : EXIT.denied, text);
}

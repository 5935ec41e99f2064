import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { toBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { type ImportedKey, ImportedKeySchema, type ImportKeysResult } from '../../gen/apikey/v1/admin_pb.ts';
import { ErrorInfoSchema, ResourceInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { CliError, type Clients, type ConnectionOptions, EXIT } from './client.ts';
import { type FileKey, type KeyFile, readKeyFile } from './key-files.ts';
import { type Print, Progress } from './output.ts';

/** As many, and as much, as one call takes. */
const CHUNK_KEYS = 1_000;
const CHUNK_BYTES = 900_000;
const CHUNKS_AT_ONCE = 4;
const CREATES_AT_ONCE = 32;
const CALL_MS = 60_000;
const MAX_ATTEMPTS = 6;
const FIRST_WAIT_MS = 200;

export interface FileOptions extends ConnectionOptions {
  /** Of keys whose line names none. */
  readonly owner: string;
}

/** `api-key import`: the whole file is checked first; then what is not here yet is written. */
export async function importFile(
  clients: Clients,
  options: FileOptions,
  path: string,
  print: Print,
): Promise<number> {
  const file = withOwner(readKeyFile(path), options.owner);
  const chunks = chunksOf(file.keys);
  await checkAll(clients, file, chunks, 'nothing was imported');
  const progress = new Progress('importing', file.keys.length);
  const results = new Map<number, ImportKeysResult>();
  try {
    await each(chunks, CHUNKS_AT_ONCE, async (chunk) => {
      const answer = await again(() =>
        importKeys(
          clients,
          chunk.map(({ key }) => key),
          false,
        ),
      );
      for (const [i, { line }] of chunk.entries()) {
        const result = answer.results[i];
        if (result !== undefined) results.set(line, result);
      }
      progress.at(results.size);
    });
  } catch (error) {
    progress.end();
    throw interrupted(error, `${results.size} of ${file.keys.length} keys are imported`);
  }
  progress.end();
  if (options.json) {
    for (const { line } of file.keys) {
      const { id, existing } = results.get(line) ?? { id: '', existing: false };
      print(JSON.stringify({ line, id, existing }));
    }
    return EXIT.ok;
  }
  const existing = [...results.values()].filter((result) => result.existing).length;
  print(`imported ${results.size - existing} keys${existing > 0 ? `; ${existing} were here already` : ''}`);
  return EXIT.ok;
}

/** `api-key create --from`: one key a line. A repetition of the same file makes none twice. */
export async function createFromFile(
  clients: Clients,
  options: FileOptions,
  path: string,
  print: Print,
): Promise<number> {
  const file = forNewKeys(withOwner(readKeyFile(path), options.owner));
  // What CreateKey would refuse, ImportKeys names without making anything; a hash of nothing stands for the secret.
  const standIns = file.keys.map(({ line, key }) => ({
    line,
    key: { ...key, keyHash: randomBytes(32).toString('hex') },
  }));
  await checkAll(clients, file, chunksOf(standIns), 'nothing was created');
  const mark = createHash('sha256').update(JSON.stringify(file.keys, plain)).digest('hex');
  const progress = new Progress('creating', file.keys.length);
  const made: string[] = [];
  let printed = 0;
  let done = 0;
  if (!options.json && !options.quiet) print('line,name,id,secret');
  try {
    await each(file.keys, CREATES_AT_ONCE, async ({ line, key }, i) => {
      const { id, secret } = await createOne(clients, key, `bulk:${mark}:${line}`);
      const row = { line, name: key.name, id, secret };
      if (options.json) made[i] = JSON.stringify(row);
      else made[i] = options.quiet ? secret : [line, cell(key.name), id, secret].join(',');
      // In the order of the file, and each as soon as can be: a secret that is lost on the way cannot be had again.
      for (let next = made[printed]; next !== undefined; next = made[++printed]) print(next);
      progress.at(++done);
    });
  } catch (error) {
    progress.end();
    for (const row of made.slice(printed).filter(Boolean)) print(row);
    throw interrupted(error, `${done} of ${file.keys.length} keys are made`);
  }
  progress.end();
  return EXIT.ok;
}

async function createOne({ admin }: Clients, key: ImportedKey, requestId: string) {
  const { $typeName: _name, $unknown: _unknown, keyHash: _hash, expireTime, ...fields } = key;
  const expiry =
    expireTime === undefined ? {} : { expiry: { case: 'expireTime', value: expireTime } as const };
  try {
    const answer = await again(() => admin.createKey({ ...fields, ...expiry, requestId }));
    return { id: answer.key?.id ?? '', secret: answer.secret };
  } catch (error) {
    const failure = ConnectError.from(error);
    if (failure.findDetails(ErrorInfoSchema)[0]?.reason !== 'REQUEST_ID_USED') throw error;
    // Made by an earlier run of this file: its secret was shown then.
    return { id: failure.findDetails(ResourceInfoSchema)[0]?.resourceName ?? '', secret: '' };
  }
}

function withOwner({ keys, problems }: KeyFile, owner: string): KeyFile {
  const owned = keys.map(({ line, key }) => ({ line, key: { ...key, ownerId: key.ownerId || owner } }));
  return { keys: owned, problems };
}

/** What may stand in a line of a key that is taken over, and not in that of a new one. */
function forNewKeys({ keys, problems }: KeyFile): KeyFile {
  const found = keys.flatMap(({ line, key: { keyHash, expireTime } }) => [
    ...(keyHash === '' ? [] : [`${line}: hash: a new key has none; "api-key import" takes keys over by it`]),
    ...(expireTime === undefined || timestampMs(expireTime) > Date.now()
      ? []
      : [`${line}: expires: in the past`]),
  ]);
  return { keys, problems: [...problems, ...found] };
}

/** @throws CliError that names each wrong line */
async function checkAll(
  clients: Clients,
  { keys, problems }: KeyFile,
  chunks: readonly (readonly FileKey[])[],
  nothing: string,
): Promise<void> {
  const found = [...problems, ...repeated(keys)];
  const progress = new Progress('checking', keys.length);
  let checked = 0;
  await each(chunks, CHUNKS_AT_ONCE, async (chunk) => {
    const { results } = await again(() =>
      importKeys(
        clients,
        chunk.map(({ key }) => key),
        true,
      ),
    );
    // Repetitions are known already, by their lines.
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

/** Two lines with one hash, however far apart. */
function repeated(keys: readonly FileKey[]): string[] {
  const lines = new Map<string, number>();
  return keys.flatMap(({ line, key: { keyHash } }) => {
    const first = lines.get(keyHash);
    if (first === undefined) lines.set(keyHash, line);
    return first === undefined || keyHash === '' ? [] : [`${line}: key_hash: the same as in line ${first}`];
  });
}

function importKeys({ admin }: Clients, keys: ImportedKey[], validateOnly: boolean) {
  return admin.importKeys({ keys, validateOnly }, { timeoutMs: CALL_MS });
}

function chunksOf(keys: readonly FileKey[]): FileKey[][] {
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

/** So many at once; the first failure ends all, after what is under way. */
async function each<T>(items: readonly T[], atOnce: number, work: (item: T, i: number) => Promise<void>) {
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

/** These calls may be repeated: an import by its hashes, a creation by its request_id. */
async function again<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const failure = ConnectError.from(error);
      // Without a reason of ours nobody is there at all.
      const ours = failure.findDetails(ErrorInfoSchema).length > 0;
      if (attempt === MAX_ATTEMPTS || !ours || !PASSING.has(failure.code)) throw error;
      await delay(FIRST_WAIT_MS * 2 ** attempt * (0.5 + Math.random()));
    }
  }
}

function interrupted(error: unknown, soFar: string): CliError | unknown {
  const failure = ConnectError.from(error);
  const text = `${failure.rawMessage}: ${soFar}; run the same command again to go on`;
  return new CliError(failure.code === Code.Unavailable ? EXIT.unreachable : EXIT.denied, text);
}

/** A cell of CSV. */
function cell(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** 64-bit numbers are no JSON. */
function plain(_name: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

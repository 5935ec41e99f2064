import { createHash, randomBytes } from 'node:crypto';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { ConnectError } from '@connectrpc/connect';
import type { ImportedKey } from '../../../gen/apikey/v1/admin_pb.ts';
import { ErrorInfoSchema, ResourceInfoSchema } from '../../../gen/google/rpc/error_details_pb.ts';
import { type Clients, EXIT } from '../client.ts';
import { type Print, Progress } from '../output.ts';
import { type KeyFile, readKeyFile } from './key-file.ts';
import {
  checkAll,
  chunksOf,
  each,
  type FileOptions,
  interrupted,
  withOwner,
  withRetries,
} from './many-keys.ts';

const CREATES_AT_ONCE = 32;

/** `api-key create --from`: one key per line. Running the same file again creates no key twice. */
export async function createFromFile(
  clients: Clients,
  options: FileOptions,
  path: string,
  print: Print,
): Promise<number> {
  const file = forNewKeys(withOwner(readKeyFile(path), options.owner));
  // ImportKeys with validate_only reports all problems and writes nothing; a random hash stands in for the secret.
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
      // Prints rows in the order of the file, each as early as possible: a secret that is not printed is lost.
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
    const response = await withRetries(() => admin.createKey({ ...fields, ...expiry, requestId }));
    return { id: response.key?.id ?? '', secret: response.secret };
  } catch (error) {
    const failure = ConnectError.from(error);
    if (failure.findDetails(ErrorInfoSchema)[0]?.reason !== 'REQUEST_ID_USED') throw error;
    // An earlier run of this file created the key and printed its secret.
    return { id: failure.findDetails(ResourceInfoSchema)[0]?.resourceName ?? '', secret: '' };
  }
}

/** Adds the problems of lines that are valid for an import but not for a new key. */
function forNewKeys({ keys, problems }: KeyFile): KeyFile {
  const found = keys.flatMap(({ line, key: { keyHash, expireTime } }) => [
    ...(keyHash === ''
      ? []
      : [`${line}: hash: a new key has none; use "api-key import" for keys with a hash`]),
    ...(expireTime === undefined || timestampMs(expireTime) > Date.now()
      ? []
      : [`${line}: expires: in the past`]),
  ]);
  return { keys, problems: [...problems, ...found] };
}

/** Quotes a cell of CSV when needed. */
function cell(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** JSON.stringify refuses bigint. */
function plain(_name: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

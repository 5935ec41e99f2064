import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { fromJson, type JsonObject, type JsonValue } from '@bufbuild/protobuf';
import { type CsvError, parse } from 'csv-parse/sync';
import { type ImportedKey, ImportedKeySchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { KeyTypeSchema } from '../../../gen/apikey/v1/key_pb.ts';
import { looseJson } from '../../messages/strict-json.ts';
import { CliError, EXIT } from '../client.ts';
import { isoTime, pairs, rateLimit, seconds, word } from '../values.ts';

/** A key of a file, with the number of its first line. */
export interface FileKey {
  readonly line: number;
  readonly key: ImportedKey;
}

export interface KeyFile {
  readonly keys: readonly FileKey[];
  /** The problems, as `line: text`. */
  readonly problems: readonly string[];
}

const LISTS = /[\s;]+/;

/** How each column is read; blanks or semicolons separate the items of a list. */
const COLUMNS: Readonly<Record<string, (text: string) => JsonObject>> = {
  name: (text) => ({ name: text }),
  owner: (text) => ({ ownerId: text }),
  // proto3 JSON also accepts the number of an enum value.
  type: (text) => ({ keyType: word(KeyTypeSchema)(text) }),
  scopes: (text) => ({ scopes: text.split(LISTS).filter(Boolean) }),
  limits: (text) => ({ rateLimits: text.split(LISTS).filter(Boolean).map(limitOf) }),
  bucket: (text) => ({ rateLimitBucket: text }),
  expires: (text) => (text === '' ? {} : { expireTime: isoTime(text).toISOString() }),
  addresses: (text) => ({ ipAllowlist: text.split(LISTS).filter(Boolean) }),
  metadata: (text) => ({ metadata: Object.fromEntries(pairs(text.split(';').filter(Boolean))) }),
  rotate_every: (text) => (text === '' ? {} : { rotateEvery: `${seconds(text)}s` }),
  local_validation: (text) => (text === '' ? {} : { localValidation: yesOrNo(text) }),
  hash: (text) => ({ keyHash: text.toLowerCase() }),
};

function yesOrNo(text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new Error('true or false');
  return text === 'true';
}

/** Reads CSV or JSON lines, by the content of the file. Every unreadable line is reported. */
export function readKeyFile(path: string): KeyFile {
  let text: string;
  try {
    text = textOf(readFileSync(path === '-' ? 0 : path));
  } catch (error) {
    throw new CliError(EXIT.usage, `cannot read ${path}: ${(error as Error).message}`);
  }
  const rows = text.trimStart().startsWith('{') ? jsonLines(text) : csv(text);
  const keys: FileKey[] = [];
  const problems: string[] = [];
  for (const { line, read } of rows) {
    try {
      const json = read();
      const { found } = looseJson(ImportedKeySchema, json);
      for (const { field, description } of found) problems.push(`${line}: ${field}: ${description}`);
      if (found.length === 0) keys.push({ line, key: fromJson(ImportedKeySchema, json) });
    } catch (error) {
      problems.push(`${line}: ${wordsOf(error)}`);
    }
  }
  if (rows.length === 0) throw new CliError(EXIT.usage, `${path} contains no keys`);
  return { keys, problems };
}

/** Refuses bytes that are not UTF-8, since decoding would replace them. */
function textOf(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let [line, at] = [1, 0];
  for (
    let end = bytes.indexOf(10);
    end >= 0 && isUtf8(bytes.subarray(at, end));
    end = bytes.indexOf(10, at)
  ) {
    line++;
    at = end + 1;
  }
  throw new Error(`line ${line} is not UTF-8`);
}

interface Row {
  readonly line: number;
  readonly read: () => JsonValue;
}

/** Each line is the JSON of an ImportedKey, where a field may also have the name of a CSV column. */
function jsonLines(text: string): Row[] {
  return text.split(/\r?\n/).flatMap((content, i) => {
    if (content.trim() === '') return [];
    const read = () => {
      const object: unknown = JSON.parse(content);
      if (typeof object !== 'object' || object === null || Array.isArray(object))
        throw new Error('not an object');
      const entries = Object.entries(object as JsonObject).map(([name, value]) =>
        typeof value === 'string' && Object.hasOwn(COLUMNS, name) ? columnOf(name, value) : { [name]: value },
      );
      return merged(entries);
    };
    return [{ line: i + 1, read }];
  });
}

function csv(text: string): Row[] {
  let records: { record: string[]; info: { lines: number } }[];
  try {
    // The types of the library do not cover `info`.
    const parsed: unknown = parse(text, {
      info: true,
      bom: true,
      skip_empty_lines: true,
      trim: true,
      relax_column_count: true,
    });
    records = parsed as typeof records;
  } catch (error) {
    throw new CliError(EXIT.usage, `not CSV: ${(error as CsvError).message}`);
  }
  const header = records.shift()?.record ?? [];
  const unknown = header.find((name) => !Object.hasOwn(COLUMNS, name));
  if (unknown !== undefined) {
    const known = Object.keys(COLUMNS).join(', ');
    // Without a header the first line is data, which must not appear in a log.
    const shown = /^[\w -]{1,16}$/.test(unknown) ? unknown : 'such column';
    throw new CliError(EXIT.usage, `the first line names the columns: there is no ${shown}, but ${known}`);
  }
  return records.map(({ record, info }) => ({
    line: info.lines,
    read: () => {
      if (record.length !== header.length)
        throw new Error(`${record.length} columns where the first line has ${header.length}`);
      return merged(header.map((name, i) => columnOf(name, record[i] ?? '')));
    },
  }));
}

/** Merges all parts; a field that occurs twice is refused. */
function merged(parts: readonly JsonObject[]): JsonObject {
  const entries = parts.flatMap((part) => Object.entries(part));
  const names = entries.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new Error(`${twice}: is given twice`);
  return Object.fromEntries(entries);
}

/** @throws an Error that names the column */
function columnOf(name: string, text: string): JsonObject {
  try {
    return COLUMNS[name]?.(text) ?? {};
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`);
  }
}

function limitOf(text: string): JsonObject {
  const { name, limit, windowSeconds } = rateLimit(text);
  return { name, limit: String(limit), window: `${windowSeconds}s` };
}

/** The text of an error without any value of the file, which must not appear in a log. */
function wordsOf(error: unknown): string {
  if (error instanceof SyntaxError) return 'not JSON';
  const text = error instanceof Error ? error.message : String(error);
  const unknown = /key "([\w.]{1,64})" is unknown/.exec(text)?.[1];
  if (unknown !== undefined) return `there is no ${unknown}`;
  return text.startsWith('cannot decode') ? 'cannot be read' : text;
}

import { readFileSync } from 'node:fs';
import type { DescEnum } from '@bufbuild/protobuf';
import { InvalidArgumentError } from 'commander';
import { CliError, EXIT } from './client.ts';

const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 };
const ISO = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$/;

/** For options that may be given several times. */
export function collect<T>(read: (text: string) => T) {
  return (text: string, before: readonly T[] = []): readonly T[] => [...before, read(text)];
}

/** `90s`, `15m`, `24h`, `7d` as seconds. */
export function seconds(text: string): number {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (count === undefined || unit === undefined)
    throw new InvalidArgumentError('a length like 90s, 15m, 24h or 7d');
  return Number(count) * (UNIT_SECONDS[unit] ?? 1);
}

/** `100/60s`, or `name=100/60s`. */
export function rateLimit(text: string): { name: string; limit: bigint; windowSeconds: number } {
  const [, name, limit, window] = /^(?:([A-Za-z0-9_.-]+)=)?(\d{1,18})\/(\w+)$/.exec(text) ?? [];
  if (limit === undefined || window === undefined)
    throw new InvalidArgumentError('a limit like 100/60s or burst=10/1s');
  return { name: name ?? `per-${window}`, limit: BigInt(limit), windowSeconds: seconds(window) };
}

/** Converts limits to the fields of the API. */
export function toRateLimits(limits: readonly ReturnType<typeof rateLimit>[]) {
  return limits.map(({ name, limit, windowSeconds }) => ({
    name,
    limit,
    window: { seconds: BigInt(windowSeconds) },
  }));
}

/** A time with Z or an offset. */
export function isoTime(text: string): Date {
  const time = ISO.test(text) && isDay(text) ? new Date(text) : new Date(Number.NaN);
  if (Number.isNaN(time.getTime())) throw new InvalidArgumentError('a time like 2027-01-31T12:00:00Z');
  return time;
}

/** A time, or how long ago: `24h`. */
export function timeOrAgo(text: string): Date {
  if (/^\d+[smhd]$/.test(text)) return new Date(Date.now() - seconds(text) * 1000);
  const time = ISO.test(text) ? isoTime(text) : undefined;
  if (time === undefined)
    throw new InvalidArgumentError('a time like 2027-01-31T12:00:00Z, or how long ago: 15m, 24h, 7d');
  return time;
}

/** False for 30 February and the like, which Date turns into a day of March. */
function isDay(text: string): boolean {
  const [year = 0, month = 0, day = 0] = text.slice(0, 10).split('-').map(Number);
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

export function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('a whole number');
  return Number(text);
}

function pair(text: string): readonly [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('name=value');
  return [text.slice(0, at), text.slice(at + 1)];
}

/** Pairs with different names: a repeated name would silently replace the earlier value. */
export function pairs(texts: readonly string[]): readonly (readonly [string, string])[] {
  const all = texts.map(pair);
  const names = new Set<string>();
  for (const [name] of all) {
    if (names.has(name)) throw new InvalidArgumentError(`${name} is given twice`);
    names.add(name);
  }
  return all;
}

/** The same for an option that may be given several times. */
export function collectPairs(text: string, before: readonly (readonly [string, string])[] = []) {
  return pairs([...before.map((each) => each.join('=')), text]);
}

/** The values of an enum in lower case with dashes: `user`, `key-compromise`. */
export function wordsOf(schema: DescEnum): ReadonlyMap<string, number> {
  const shared = schema.sharedPrefix?.length ?? 0;
  const known = schema.values.filter(({ number }) => number !== 0);
  return new Map(
    known.map(({ name, number }) => [name.slice(shared).toLowerCase().replaceAll('_', '-'), number]),
  );
}

/** Reads the name of an enum value, in either case. */
export function word(schema: DescEnum) {
  const words = wordsOf(schema);
  return (text: string): number => {
    const value = words.get(text.toLowerCase().replaceAll('_', '-'));
    if (value === undefined) throw new InvalidArgumentError(`one of ${[...words.keys()].join(', ')}`);
    return value;
  };
}

/** The name of an enum value without the prefix of the enum: `KEY_COMPROMISE`. */
export function nameOf(schema: DescEnum, value: number): string {
  return schema.value[value]?.name.slice(schema.sharedPrefix?.length ?? 0) ?? String(value);
}

export function linesOfStandardInput(): string[] {
  return readFileSync(0, 'utf8').split(/\r?\n/);
}

/** Refuses a secret as an argument, which others could see: `-` reads the first line of standard input. */
export function secretFrom(argument: string): string {
  if (argument !== '-')
    throw new CliError(EXIT.usage, 'give the secret on standard input, and - as the argument');
  return linesOfStandardInput()[0] ?? '';
}

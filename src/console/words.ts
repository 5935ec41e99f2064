import type { DescEnum } from '@bufbuild/protobuf';
import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { serverNow } from './server-clock.ts';

/** An enum's value as people read it: `KEY_TYPE_SERVICE` → `service`. */
export function wordOf(schema: DescEnum, value: number): string {
  const name = schema.value[value]?.name.slice(schema.sharedPrefix?.length ?? 0) ?? String(value);
  return name.toLowerCase().replaceAll('_', ' ');
}

/** The values of an enum for a menu, without the unspecified one. */
export function choicesOf(schema: DescEnum): { value: string; text: string }[] {
  return schema.values
    .filter(({ number }) => number !== 0)
    .map(({ number }) => ({ value: String(number), text: wordOf(schema, number) }));
}

export function timeOf(value: Timestamp | undefined): string {
  if (value === undefined) return '—';
  return timestampDate(value)
    .toISOString()
    .replace('T', ' ')
    .replace(/\.\d+Z$/, ' UTC');
}

const UNITS = [
  ['d', 86_400],
  ['h', 3_600],
  ['min', 60],
  ['s', 1],
] as const;

export function lengthOf(value: Duration | undefined): string {
  if (value === undefined) return '—';
  const seconds = Number(value.seconds);
  const [unit, size] = UNITS.find(([, size]) => seconds >= size && seconds % size === 0) ?? ['s', 1];
  return `${seconds / size} ${unit}`;
}

const SIZES: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** `90s`, `15m`, `24h`, `7d` in seconds; undefined when it is none of these. */
export function secondsOf(text: string): number | undefined {
  const [, count, unit] = /^(\d{1,9})\s*([smhd])$/.exec(text.trim()) ?? [];
  return count === undefined || unit === undefined ? undefined : Number(count) * (SIZES[unit] ?? 1);
}

/** The items of a field, separated by line ends or commas. */
export function linesOf(text: string): string[] {
  return text
    .split(/[\n,]/)
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

export function ago(value: Timestamp | undefined): string {
  if (value === undefined) return 'never';
  const seconds = Math.max(0, Math.round((serverNow() - timestampDate(value).getTime()) / 1000));
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? ['s', 1];
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

import { writeSync } from 'node:fs';
import { stripVTControlCharacters, styleText } from 'node:util';
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { toJson } from '@bufbuild/protobuf';
import { type Timestamp, timestampDate } from '@bufbuild/protobuf/wkt';

export type Print = (text: string) => void;

/** Words that are coloured green, and red. */
const GOOD = new Set(['ACTIVE', 'VALID', 'ALIVE', 'OK', 'ok', 'RESOLVED', 'DECISION_VALID']);
const BAD = new Set(['REVOKED', 'EXPIRED', 'DEAD', 'WRONG', 'OPEN', 'LOCAL_ONLY', 'REMOTE_ONLY', 'ROTATED']);
const MIN_COLUMN = 8;

/** Control characters, marks of text direction, other line separators, halves of surrogate pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;
/** The control characters that this program itself writes: colours and tabs. */
const OWN = new RegExp(`(${String.fromCharCode(27)}\\[\\d{1,2}m|\t)`);

/** Escapes a foreign text as JSON does, so that a terminal shows control characters instead of obeying them. */
export function plain(text: string): string {
  return text.replace(UNPRINTABLE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Escapes a whole output of this program, except for its line ends, tabs and colours. */
export function printable(text: string): string {
  const line = (part: string, i: number) => (i % 2 === 1 ? part : plain(part));
  return text
    .split('\n')
    .map((each) => each.split(OWN).map(line).join(''))
    .join('\n');
}

/** Coloured only on a terminal without NO_COLOR. */
function styled(format: 'green' | 'red' | 'dim', text: string): string {
  return styleText(format, text, { stream: process.stdout });
}

/** Colours a state green or red. */
export function state(word: string): string {
  const bare = word.trim();
  if (GOOD.has(bare)) return styled('green', word);
  return BAD.has(bare) || bare.startsWith('DECISION_') ? styled('red', word) : word;
}

/** The message as proto3 JSON. */
export function json<S extends DescMessage>(schema: S, message: MessageShape<S>): string {
  return JSON.stringify(toJson(schema, message), null, 2);
}

/** Aligns columns. On a terminal the widest columns are cut until a row fits in a line. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows.map((row) => row.map(plain))];
  const widths = header.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  shrink(widths, process.stdout.columns ?? Number.POSITIVE_INFINITY);
  return all
    .map((row, n) => {
      const cells = row.map((cell, i) => cut(cell, widths[i] ?? 0).padEnd(widths[i] ?? 0));
      return cells.map((cell) => (n === 0 ? styled('dim', cell) : state(cell))).join('  ');
    })
    .map((line) => (stripVTControlCharacters(line) === line ? line.trimEnd() : line))
    .join('\n');
}

/** Shortens the widest column until all fit, or none can be cut. The first column stays whole: people copy it. */
function shrink(widths: number[], room: number): void {
  const gaps = 2 * (widths.length - 1);
  while (widths.reduce((sum, width) => sum + width, gaps) > room) {
    const widest = Math.max(...widths.slice(1));
    if (widest <= MIN_COLUMN) return;
    widths[widths.lastIndexOf(widest)] = widest - 1;
  }
}

function cut(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, width - 1)}…` : text;
}

export function time(value: Timestamp | undefined): string {
  return value === undefined ? '-' : timestampDate(value).toISOString();
}

const FULL_MS = 5;
const MAX_FULL = 1_000;

/** Standard error has all of it before the process ends: a pipe takes some 64 KiB at once. Nothing where nobody reads. */
export function tellAll(text: string): void {
  const moment = new Int32Array(new SharedArrayBuffer(4));
  let rest = Buffer.from(text);
  for (let full = 0; rest.length > 0 && full < MAX_FULL; ) {
    try {
      rest = rest.subarray(writeSync(2, rest));
      full = 0;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      full++;
      Atomics.wait(moment, 0, 0, FULL_MS);
    }
  }
}

const SHOW_EVERY_MS = 100;
const BAR_CELLS = 24;

/** A progress line on standard error; nothing when that is no terminal. */
export class Progress {
  readonly #what: string;
  #total: number;
  readonly #begun = Date.now();
  #shown = 0;

  /** @param total 0 when unknown. */
  constructor(what: string, total = 0) {
    this.#what = what;
    this.#total = total;
  }

  /** @param total when it becomes known only now */
  at(done: number, total = this.#total): void {
    this.#total = total;
    const now = Date.now();
    if (!process.stderr.isTTY || now - this.#shown < SHOW_EVERY_MS) return;
    this.#shown = now;
    process.stderr.write(`\r\x1b[K${this.#text(done)}`);
  }

  /** Shows the elapsed time, for work that reports no progress. */
  async during<T>(work: Promise<T>): Promise<T> {
    const timer = setInterval(() => this.at(0), SHOW_EVERY_MS);
    try {
      return await work;
    } finally {
      clearInterval(timer);
      this.end();
    }
  }

  end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }

  #text(done: number): string {
    const seconds = `${Math.floor((Date.now() - this.#begun) / 1000)} s`;
    if (this.#total === 0) return `${this.#what} ${done > 0 ? `${done}, ` : ''}${seconds}`;
    const part = Math.min(1, done / this.#total);
    const bar = '█'.repeat(Math.round(part * BAR_CELLS)).padEnd(BAR_CELLS, '░');
    return `${this.#what} ${bar} ${done} of ${this.#total}, ${seconds}`;
  }
}

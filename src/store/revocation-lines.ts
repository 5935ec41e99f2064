import { hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type Chain, GENESIS } from '../audit/chain.ts';
import type { RevocationRecord } from '../keys/ports/revocations.ts';
import { StartError } from './store.ts';

/** The content of one line of the file. */
export type Line =
  | { readonly kind: 'begin' | 'cover'; readonly revision: number }
  | ({ readonly kind: 'key' } & RevocationRecord);

/** A line with its number, from 1 on, and the offset in the file where it ends. */
export interface ReadLine {
  readonly line: Line;
  /** The sealed text, without the seal. */
  readonly text: string;
  readonly seal: string;
  readonly number: number;
  readonly end: number;
}

const SEAL_CHARACTERS = 64;
const MAX_LINE_BYTES = 16 * 1_048_576;
const LINE_END = 0x0a;

/** Each seal covers the previous seal and the line: an HMAC with a chain key; without one it detects only damage. */
export function sealOf(chain: Chain, before: string, text: string): string {
  return chain.mac(['revocation', before, text]) || hash('sha256', `${before} ${text}`, 'hex');
}

/**
 * The lines of a file in order, each checked against its seal. Text after the last line end is left out: a crash cut
 * that line before its call was answered. @throws StartError where a seal does not match
 */
export async function* readLines(file: string, chain: Chain): AsyncGenerator<ReadLine, void> {
  let seal = GENESIS;
  let number = 0;
  let end = 0;
  for await (const bytes of wholeLines(file)) {
    number++;
    end += bytes.length + 1;
    const stands = bytes.toString();
    const text = stands.slice(SEAL_CHARACTERS + 1);
    seal = sealOf(chain, seal, text);
    if (stands !== `${seal} ${text}`) throw notWritten(file, number);
    yield { line: JSON.parse(text) as Line, text, seal, number, end };
  }
}

async function* wholeLines(file: string): AsyncGenerator<Buffer, void> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    let from = 0;
    for (let at = chunk.indexOf(LINE_END); at >= 0; at = chunk.indexOf(LINE_END, from)) {
      const piece = chunk.subarray(from, at);
      yield rest.length === 0 ? piece : Buffer.concat([rest, piece]);
      rest = Buffer.alloc(0);
      from = at + 1;
    }
    rest = Buffer.concat([rest, chunk.subarray(from)]);
    if (rest.length > MAX_LINE_BYTES) return;
  }
}

function notWritten(file: string, line: number): StartError {
  return new StartError(
    69,
    `REVOCATION_LOG: line ${line} of ${file} is not what was written there, or was with another chain key; docs/runbooks.md says what to do`,
  );
}

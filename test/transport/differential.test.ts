// If this fails, our HTTP/2 answers what Node's (nghttp2) refuses, or refuses what Node's answers.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FLAG, FRAME } from '../../src/transport/http2/frames.ts';
import { frame, post } from '../attacks/attack.ts';
import { ROOT } from '../support/tools.ts';
import { DIFFERENCES, explained, Oddities } from './differences.ts';
import { Pair } from './differential.ts';
import { anyFrames, FIRST, Ids, inWords } from './http2/any-frame.ts';

/** Of what a state-machine would send; and with any of its bytes another. */
const sent = fc
  .tuple(fc.boolean(), fc.array(anyFrames, { maxLength: 12, size: 'max' }))
  .map(([begins, makings]) => {
    const ids = new Ids();
    const frames = [...(begins ? FIRST(ids) : []), ...makings.flatMap((making) => making(ids))];
    return { frames, damaged: false };
  });
const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 });
const damaged = fc.tuple(sent, damage).map(([{ frames }, changes]) => {
  const whole = Buffer.concat(frames);
  for (const [at, value] of changes) if (whole.length > 0) whole[at % whole.length] = value;
  return { frames: [whole], damaged: true };
});
const sequence = fc.oneof({ weight: 4, arbitrary: sent }, { weight: 1, arbitrary: damaged });
const cuts = fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 3 });

const SEED = Number(process.env.SEED ?? 9113);
const LANES = 32;
/** The long run takes 10 000 000, or as many as 70 minutes allow. */
const RUNS = Number(process.env.SEQUENCES ?? (process.env.LONG ? 10_000_000 : 10_000));

describe('the same frames to both servers of HTTP/2', () => {
  let pair: Pair;
  let compared = 0;
  const { stackTraceLimit } = Error;
  beforeAll(async () => {
    pair = await Pair.listen();
    // Both servers make an error of most sequences, and nobody reads its stack.
    Error.stackTraceLimit = 0;
  });
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit;
    pair.close();
  });

  /** @param more frames that Node's alone is sent. */
  const alike = (more: readonly Buffer[] = []) =>
    fc.asyncProperty(sequence, cuts, async (made, pieces) => {
      const [own, node] = await Promise.all([
        pair.tell('own', made, pieces),
        pair.tell('node', { ...made, frames: [...made.frames, ...more] }, pieces),
      ]);
      compared++;
      const names = explained({ odd: new Oddities(Buffer.concat(made.frames)), own, node });
      if (names === undefined) expect(own, made.frames.map(inWords).join('\n')).toEqual(node);
    });

  it(`are answered alike, ${RUNS} sequences`, { timeout: 4_500_000 }, async () => {
    const lanes = Array.from({ length: LANES }, (_, lane) =>
      fc.assert(alike(), {
        seed: SEED + lane,
        numRuns: Math.ceil(RUNS / LANES),
        interruptAfterTimeLimit: 4_200_000,
      }),
    );
    const begun = performance.now();
    await Promise.all(lanes);
    const minutes = (performance.now() - begun) / 60_000;
    if (process.env.LONG)
      process.stdout.write(`${compared} sequences, ${Math.round(compared / minutes)} a minute\n`);
  });

  it.each(DIFFERENCES)('are answered otherwise: $name', async ({ name, shows }) => {
    const frames = [...FIRST(new Ids()), ...shows];
    const sequence = { frames, damaged: false };
    const [own, node] = await Promise.all([pair.tell('own', sequence, []), pair.tell('node', sequence, [])]);
    expect(
      explained({ odd: new Oddities(Buffer.concat(frames)), own, node }),
      JSON.stringify([own, node]),
    ).toEqual([name]);
  });

  it('are found to be answered otherwise when one of them is asked for more', async () => {
    const one = frame(FRAME.HEADERS, FLAG.END_STREAM | FLAG.END_HEADERS, 99, post('/more'));
    expect((await fc.check(alike([one]), { seed: SEED, numRuns: 100 })).failed).toBe(true);
  });

  it('have their differences in docs/design/http2.md', () => {
    const page = readFileSync(join(ROOT, 'docs/design/http2.md'), 'utf8');
    const differing = (page.split('\n## Where Node')[1] ?? '').split('\n## ')[0] ?? '';
    const rows = [...differing.matchAll(/^\| ([^|]+) \|/gm)].map(([, name]) => name);
    expect(rows.slice(1).sort()).toEqual(DIFFERENCES.map(({ name }) => name).sort());
  });
});

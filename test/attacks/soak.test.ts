// If this fails, a server that is attacked all day slowly fills its memory, or fails those who mean well.
import { expect, it } from 'vitest';
import { HTTP2_SERVER_NAMES } from '../support/http2.ts';
import { AttackerProcess } from './attacker-process.ts';
import { ATTACKS } from './catalogue.ts';
import { Target } from './target.ts';

/** Of each server: an hour of both. SOAK_MINUTES is for whoever looks for something. */
const MINUTES = Number(process.env.SOAK_MINUTES ?? 30);
/** What a server holds after a round of all attacks must not grow by more, from the middle round to the last. */
const MAX_GROWTH = 64 << 20;
const ROUNDS = 9;
const MIDDLE = 4;
/** Of each attack. */
const MS = Math.max(300, (MINUTES * 60_000) / (ROUNDS * ATTACKS.length));

it.runIf(process.env.LONG).each(HTTP2_SERVER_NAMES.map((http2, i) => [http2, i === 0] as const))(
  `${MINUTES} minutes of one attack after the other harm nobody, HTTP2_SERVER=%s, with TLS %s`,
  async (http2, tls) => {
    const target = await Target.start(http2, tls);
    const attacker = new AttackerProcess();
    const levels: number[] = [];
    let served = 0;
    try {
      for (let round = 0; round < ROUNDS; round++) {
        for (const [i, { name, only }] of ATTACKS.entries()) {
          if (only !== undefined && !tls) continue;
          const port = target.ports[(i + round) % 2 === 0 ? 'grpc' : 'http'];
          const good = await target.good(attacker.attack({ name, port, tls, ms: MS }));
          expect(good.errors, name).toEqual([]);
          served += good.served;
        }
        expect(await target.errorsOfNew()).toEqual([]);
        levels.push(await target.level());
      }
      const growth = (levels.at(-1) ?? 0) - (levels[MIDDLE] ?? 0);
      const mebibytes = levels.map((bytes) => Math.round(bytes / 2 ** 20)).join(', ');
      process.stdout.write(
        `HTTP2_SERVER=${http2}: ${served} calls served, MiB after each round: ${mebibytes}\n`,
      );
      expect(growth, mebibytes).toBeLessThan(MAX_GROWTH);
    } finally {
      attacker.stop();
      await target.stop();
    }
  },
  2 * MINUTES * 60_000 + 600_000,
);

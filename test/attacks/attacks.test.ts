// If this fails, somebody without a credential can take the service down, or keep others from being served.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { HTTP2_SERVER_NAMES } from '../support/http2.ts';
import { AttackerProcess } from './attacker-process.ts';
import { ATTACKS } from './catalogue.ts';
import { Target } from './target.ts';

const LONG = process.env.LONG !== undefined;
/** Of each attack. */
const MS = LONG ? 15_000 : 300;
const MAX_GROWTH = 300 << 20;

it('has at least 40 attacks, each with a name of its own', () => {
  const names = ATTACKS.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  expect(names.length).toBeGreaterThanOrEqual(40);
});

const WAYS = HTTP2_SERVER_NAMES.flatMap((http2) => [false, true].map((tls) => ({ http2, tls }))).filter(
  // Node's with TLS differs from both of its neighbours in nothing of this program: in the long run only.
  ({ http2, tls }) => LONG || http2 === 'own' || !tls,
);

for (const { http2, tls } of WAYS)
  describe(`HTTP2_SERVER=${http2}, ${tls ? 'TLS' : 'cleartext'}: an attacker without a credential`, () => {
    let target: Target;
    let attacker: AttackerProcess;
    const figures: string[] = [];
    const begin = async () => {
      target = await Target.start(http2, tls);
      attacker = new AttackerProcess();
    };
    beforeAll(begin, 300_000);
    // One failure must not look like many.
    afterEach(async ({ task }) => {
      if (task.result?.state !== 'fail') return;
      await target.stop();
      attacker.stop();
      await begin();
    }, 300_000);
    afterAll(async () => {
      attacker?.stop();
      await target?.stop();
      if (LONG) process.stdout.write(`\n${figures.join('\n')}\n`);
    });

    const attacks = ATTACKS.filter(
      ({ only }, i) =>
        (only === undefined || tls) &&
        // Below TLS the same code meets the same bytes: every third of them shows that it does, all in the long run.
        (LONG || !tls || only !== undefined || i % 3 === 0),
    );
    describe.each(LONG ? (['grpc', 'http'] as const) : (['either'] as const))('on the port %s', (port) => {
      it.each(attacks.map(({ name }, i) => [name, i] as const))(
        '%s: the others are served',
        async (name, i) => {
          const chosen = port === 'either' ? (i % 2 === 0 ? 'grpc' : 'http') : port;
          const without = LONG ? await target.good(3_000) : undefined;
          const before = target.resident;
          let most = before;
          const watching = setInterval(() => (most = Math.max(most, target.resident)), 50);
          const attacking = attacker.attack({ name, port: target.ports[chosen], tls, ms: MS });
          const beside = await target.good(attacking);
          clearInterval(watching);
          expect(beside.errors).toEqual([]);
          expect(beside.served).toBeGreaterThan(0);
          // New connections are served, too, on both ports.
          expect(await target.errorsOfNew()).toEqual([]);
          expect(target.child.exitCode).toBeNull();
          if (without !== undefined)
            figures.push(
              `${name}: ${(beside.perSecond / without.perSecond).toFixed(2)} of the calls, ${Math.round((most - before) / 2 ** 20)} MiB`,
            );
          expect(most - before).toBeLessThan(MAX_GROWTH);
        },
      );
    });
  });

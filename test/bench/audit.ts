/** How long do queries of a million events take? */
import { performance } from 'node:perf_hooks';
import { AuditVerifier } from '../../src/audit/verify.ts';
import { systemClock } from '../../src/server/serve.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import { entryWith } from '../support/keys.ts';
import { type Answered, type Bench, median, rounded, table } from './measure.ts';

const EVENTS = 1_000_000;
const KEYS = 5_000;
const BATCH = 2_000;
const ROUNDS = 5;

export async function audit({ folder }: Bench): Promise<Answered> {
  const store = await openSqliteStore({
    url: `sqlite:${folder}/audit.db`,
    clock: systemClock,
    lockout: { maxAttempts: 5, windowSeconds: 900 },
    lease: { pollMs: 500, leaseMs: 1_500, caches: true },
    chainKey: undefined,
    warn: () => {},
  });
  const begun = performance.now();
  for (let at = 0; at < EVENTS; at += BATCH) {
    const batch = Array.from({ length: BATCH }, (_, i) => {
      // Neighbours in time are of other keys.
      const n = (at + i) * 7919;
      return entryWith({
        keyId: `uid-apikey-${n % KEYS}`,
        clientIp: `10.0.${n % 250}.${n % 7}`,
        time: 1e12 + at + i,
      });
    });
    await Promise.all(batch.map((entry) => store.audit.record(entry)));
  }
  const writeSeconds = (performance.now() - begun) / 1000;
  const timed = async (ask: () => Promise<unknown>) => {
    const figures = [];
    for (let round = 0; round < ROUNDS; round++) {
      const from = performance.now();
      await ask();
      figures.push(performance.now() - from);
    }
    return median(figures);
  };
  const page = { size: 100, after: undefined };
  const verifier = new AuditVerifier({ log: store.chainLog, chain: store.chain, clock: systemClock });
  const rows = [
    ['the newest 100', await timed(() => store.audit.list({}, page))],
    ['the newest 100 of a key', await timed(() => store.audit.list({ keyId: 'uid-apikey-77' }, page))],
    ['the newest 100 of an address', await timed(() => store.audit.list({ clientIp: '10.0.77.3' }, page))],
    [
      '100 of one hour long ago',
      await timed(() => store.audit.list({ startTime: 1e12, endTime: 1e12 + 3_600 }, page)),
    ],
    ['an outcome that never was', await timed(() => store.audit.list({ outcome: 'NONE' }, page))],
    ['VerifyAudit', await timed(() => verifier.verify([]))],
  ] as const;
  await store.close();
  return {
    facts: {},
    text: `## A million audit events

Of ${KEYS} keys, embedded store; written in ${writeSeconds.toFixed(1)} s, ${rounded(EVENTS / writeSeconds)} events/s. Milliseconds, medians of ${ROUNDS}.

${table(
  ['what', 'ms'],
  rows.map(([what, ms]) => [what, ms.toFixed(1)]),
)}`,
  };
}

/** Do calls wait longer while the audit is verified? */
import { readFileSync } from 'node:fs';
import { systemClock } from '../../src/server/serve.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import { entryWith } from '../support/keys.ts';
import { openLoop } from './load-client.ts';
import { type Answered, type Bench, median, rounded, say, table } from './measure.ts';
import { ALL_ON, apikeyd, load, targetOf } from './servers.ts';

const EVENTS = 10_000_000;
const QUICK_EVENTS = 200_000;
const BATCH = 2_000;
const SECONDS = 4;
const ROUNDS = 9;

export async function verify({ folder, quick }: Bench): Promise<Answered> {
  const events = quick ? QUICK_EVENTS : EVENTS;
  const storeUrl = `sqlite:${folder}/verify.db`;
  await fill(storeUrl, events);
  const server = await apikeyd({ ...ALL_ON, folder, name: 'verify', storeUrl });
  const half = median([1, 2, 3].map(() => load(server, 60_000))) / 2;
  const message = readFileSync(server.request);
  const p99 = async () => {
    const took = await openLoop(targetOf(server), half, SECONDS, () => message);
    return took[Math.floor(took.length * 0.99)] ?? Number.NaN;
  };
  const [without, during]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    without.push(await p99());
    const gone = new AbortController();
    const verifying = server.clients.admin.verifyAudit({}, { signal: gone.signal }).catch(() => undefined);
    during.push(await p99());
    gone.abort();
    await verifying;
    say(`  ${without.at(-1)?.toFixed(2)} ${during.at(-1)?.toFixed(2)}`);
  }
  await server.stop();
  const ratio = median(during.map((ms, i) => ms / (without[i] ?? Number.NaN)));
  const rows = [
    ['without', median(without).toFixed(2)],
    ['during a verification', median(during).toFixed(2)],
  ];
  return {
    facts: { p99DuringVerification: ratio },
    text: `## Calls while the audit is verified

${events.toLocaleString('en')} events, half of the capacity (${rounded(half)} calls/s): p99 is ${ratio.toFixed(2)} of what it is without.

${table(['', 'p99 ms'], rows)}`,
  };
}

async function fill(url: string, events: number): Promise<void> {
  const store = await openSqliteStore({
    url,
    clock: systemClock,
    lockout: { maxAttempts: 5, windowSeconds: 900 },
    lease: { pollMs: 500, leaseMs: 1_500, caches: true },
    chainKey: undefined,
    warn: () => {},
  });
  for (let at = 0; at < events; at += BATCH) {
    const batch = Array.from({ length: BATCH }, (_, i) => entryWith({ keyId: `key-${(at + i) % 5_000}` }));
    await Promise.all(batch.map((entry) => store.audit.record(entry)));
  }
  await store.close();
}

/** What does a decision of a guard cost, and what do guards cost those who revoke? */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { Guard } from '../../clients/typescript/src/index.ts';
import { makeKey } from '../rpc/cases.ts';
import type { Clients } from '../support/server.ts';
import { type Answered, type Bench, median, say, table } from './measure.ts';
import { ADMIN, apikeyd, cpuMs } from './servers.ts';

const DECISIONS = 10_000_000;
const QUICK_DECISIONS = 1_000_000;
const GUARDS = 100;
const REVOCATIONS = 200;

export async function guards({ folder, quick }: Bench): Promise<Answered> {
  const decisions = quick ? QUICK_DECISIONS : DECISIONS;
  const storeUrl = `sqlite:${folder}/guards.db`;
  const settings = { ADMIN_BOOTSTRAP_KEY: ADMIN };
  const server = await apikeyd({ folder, name: 'guards', storeUrl, settings });
  const { clients } = server;
  mkdirSync(join(folder, 'guards'), { recursive: true });
  const keyFile = join(folder, 'guards', 'own.key');
  writeFileSync(keyFile, (await makeKey(clients, { scopes: ['apikeys:validate'] })).secret);
  const begin = () => new Guard({ address: `127.0.0.1:${server.port}`, keyFile, local: true });
  const one = begin();
  const before = cpuMs(server);
  const took = await decide(one, await localKey(clients), decisions);
  const serverMs = cpuMs(server) - before;
  const alone = await revocations(clients, false);
  const single = await revocations(clients, true);
  say(`  ${GUARDS} guards`);
  const many = Array.from({ length: GUARDS - 1 }, begin);
  const guarded = await revocations(clients, true);
  const others = await revocations(clients, false);
  for (const guard of [one, ...many]) await guard.close();
  await server.stop();
  const micros = (1000 * took) / decisions;
  const rows = [
    ['no guard knows the key: 1 guard', ...alone],
    [`no guard knows the key: ${GUARDS} guards`, ...others],
    ['guards may know the key: 1 guard', ...single],
    [`guards may know the key: ${GUARDS} guards`, ...guarded],
  ];
  return {
    facts: { localDecisionMicros: micros },
    text: `## Decisions of guards

${decisions.toLocaleString('en')} decisions of a guard in TypeScript by itself, on the core of the load: ${micros.toFixed(2)} µs each. The server used
${serverMs} ms of processor meanwhile, ${((100 * serverMs) / took).toFixed(1)} % of the time.

RevokeKey on the embedded store in milliseconds, one after the other, ${REVOCATIONS} each; the guards share the core of the load.

${table(['RevokeKey', 'p50', 'p99'], rows)}`,
  };
}

const local = { localValidation: true };

async function localKey(clients: Clients): Promise<string> {
  return (await makeKey(clients, local)).secret;
}

/** Milliseconds for so many decisions, from a request's headers to the verdict; the guard's lease is kept meanwhile. */
async function decide(guard: Guard, secret: string, decisions: number): Promise<number> {
  const ask = guard.route({ scope: 'traces:read' });
  const asked = { header: (name: string) => (name === 'x-api-key' ? secret : undefined), peer: '10.1.2.3' };
  while (!(await ask(asked)).local) await new Promise((resolve) => setTimeout(resolve, 10));
  const begun = performance.now();
  for (let i = 0; i < decisions; i++) {
    await ask(asked);
    // The loop must turn now and then, or no lease is renewed.
    if (i % 5_000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  return performance.now() - begun;
}

async function revocations(clients: Clients, known: boolean): Promise<[string, string]> {
  const took: number[] = [];
  for (let i = 0; i < REVOCATIONS; i++) {
    const { id } = await makeKey(clients, known ? local : {});
    const begun = performance.now();
    await clients.admin.revokeKey({ id, reason: 1 });
    took.push(performance.now() - begun);
  }
  took.sort((a, b) => a - b);
  return [median(took).toFixed(1), (took[Math.floor(took.length * 0.99)] ?? Number.NaN).toFixed(1)];
}

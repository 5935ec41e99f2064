/** What does a decision of a guard cost, and what do guards cost those who revoke? */
import { hash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { Guard } from '../../clients/typescript/src/index.ts';
import { makeKey } from '../rpc/cases.ts';
import type { Clients } from '../support/server.ts';
import { type Answered, type Bench, median, say, table } from './measure.ts';
import { ADMIN, apikeyd, cpuMicros, cpuMs, load, type Server } from './servers.ts';

const DECISIONS = 10_000_000;
const QUICK_DECISIONS = 1_000_000;
const GUARDS = 100;
const REVOCATIONS = 200;
const CALLS = 60_000;
const ROUNDS = 10;
const IDLE_MS = 20_000;

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
  const rounds = await decide(one, await localKey(clients), decisions / ROUNDS);
  const serverMs = cpuMs(server) - before;
  const hashing = hashes(decisions);
  load(server, CALLS);
  const beforeCalls = cpuMicros(server);
  load(server, CALLS);
  const micros = { call: (cpuMicros(server) - beforeCalls) / CALLS, local: median(rounds) };
  const alone = await revocations(clients, false);
  const single = await revocations(clients, true);
  say(`  ${GUARDS} guards`);
  const many = Array.from({ length: GUARDS - 1 }, begin);
  const guarded = await revocations(clients, true);
  const others = await revocations(clients, false);
  const idle = await idleShare(server, quick ? IDLE_MS / 10 : IDLE_MS);
  for (const guard of [one, ...many]) await guard.close();
  await server.stop();
  const rows = [
    ['no guard knows the key: 1 guard', ...alone],
    [`no guard knows the key: ${GUARDS} guards`, ...others],
    ['guards may know the key: 1 guard', ...single],
    [`guards may know the key: ${GUARDS} guards`, ...guarded],
  ];
  return {
    facts: { localDecisionMicros: micros.local },
    text: `## Decisions of guards

${decisions.toLocaleString('en')} decisions of a guard in TypeScript by itself, from a request's headers to the verdict, on the core of the load:
${micros.local.toFixed(2)} µs each, the median of ${ROUNDS} rounds (${Math.min(...rounds).toFixed(2)} to ${Math.max(...rounds).toFixed(2)}); the SHA-256 of the secret alone: ${((1000 * hashing) / decisions).toFixed(2)}.
The server used ${serverMs} ms of processor meanwhile, ${((100 * serverMs * 1000) / (micros.call * decisions)).toFixed(2)} % of what as many calls of ValidateKey take at ${micros.call.toFixed(0)} µs each.

${GUARDS} guards that keep their leases and decide nothing use ${(100 * idle).toFixed(1)} % of a core of the server.

RevokeKey on the embedded store in milliseconds, one after the other, ${REVOCATIONS} each; the guards share the core of the load.

${table(['RevokeKey', 'p50', 'p99'], rows)}`,
  };
}

/** The share of a core that the server uses while only guards renew their leases. */
async function idleShare(server: Server, ms: number): Promise<number> {
  const [cpu, begun] = [cpuMs(server), performance.now()];
  await delay(ms);
  return (cpuMs(server) - cpu) / (performance.now() - begun);
}

const local = { localValidation: true };

async function localKey(clients: Clients): Promise<string> {
  return (await makeKey(clients, local)).secret;
}

/** Microseconds a decision in each round, from a request's headers to the verdict; the guard's lease is kept meanwhile. */
async function decide(guard: Guard, secret: string, decisions: number): Promise<number[]> {
  const ask = guard.route({ scope: 'traces:read' });
  const asked = { header: (name: string) => (name === 'x-api-key' ? secret : undefined), peer: '10.1.2.3' };
  while (!(await ask(asked)).local) await new Promise((resolve) => setTimeout(resolve, 10));
  const took: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const begun = performance.now();
    for (let i = 0; i < decisions; i++) {
      await ask(asked);
      // The loop must turn now and then, or no lease is renewed.
      if (i % 5_000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    took.push((1000 * (performance.now() - begun)) / decisions);
  }
  return took;
}

/** Milliseconds for so many hashes alone. */
function hashes(count: number): number {
  const begun = performance.now();
  for (let i = 0; i < count; i++) hash('sha256', 'audit_v1_benchbenchbenchbenchbe', 'base64url');
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

// If this fails, a server under load loses events, answers wrongly or fills its memory while people operate it: rotate,
// revoke, import, back up, renew certificates, with a hostile client beside; or a backup made under load is of no use.
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType, RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { mintSecret } from '../../src/keys/secret.ts';
import { AttackerProcess } from '../attacks/attacker-process.ts';
import { ATTACKS } from '../attacks/catalogue.ts';
import { closedLoop, openLoop } from '../bench/load-client.ts';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { certificate } from '../support/certificate.ts';
import { collectGarbage, INSPECTABLE } from '../support/garbage.ts';
import { apikeyd, type ServerProcess, spawnServer } from '../support/process.ts';
import { frame } from '../support/raw.ts';
import { type Clients, clientsOf } from '../support/server.ts';

const LONG = process.env.LONG !== undefined;
const MINUTES = Number(process.env.SOAK_MINUTES ?? (LONG ? 30 : 0.1));
const ROUNDS = 9;
/** From this round on the level of memory must hold; a short run is over before the level is reached. */
const MIDDLE = LONG ? 4 : 0;
const MAX_GROWTH_MIB = LONG ? 64 : 300;
const SECONDS = (MINUTES * 60) / ROUNDS;
/** Of the load beside the backup that is restored; below what a machine serves, which CI's may be less. */
const CALLS_A_SECOND = LONG ? 20_000 : 500;

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-soak-'));
const url = `sqlite:${folder}/apikeyd.db`;
const settings = {
  AUDIT_CHAIN_KEY_FILE: join(folder, 'chain.key'),
  BACKUP_DIR: folder,
  TLS_CERT_FILE: join(folder, 'now', 'tls.crt'),
  TLS_KEY_FILE: join(folder, 'now', 'tls.key'),
};
const ca = certificate({ name: 'our CA' });
let swaps = 0;
/** As Kubernetes renews a secret: a link is swapped. */
function renewCertificate(): void {
  const { cert, key } = certificate({ issuer: ca });
  const version = join(folder, `version-${++swaps}`);
  mkdirSync(version);
  writeFileSync(join(version, 'tls.crt'), cert);
  writeFileSync(join(version, 'tls.key'), key);
  symlinkSync(version, join(folder, 'next'));
  renameSync(join(folder, 'next'), join(folder, 'now'));
}

let server: ServerProcess;
let key: string;
/** On a connection of its own. */
const connected = (): Clients => clientsOf(server.ports, 'grpc', key, ca.cert);
const messageOf = (secret: string) =>
  frame(
    toBinary(
      ValidateKeyRequestSchema,
      create(ValidateKeyRequestSchema, { key: secret, requiredScope: 'traces:read', clientIp: '10.1.2.3' }),
    ),
  );
let refused = 0;
const target = () => ({
  refused: () => refused++,
  port: server.ports.grpc,
  path: '/apikey.v1.ApiKeyAuth/ValidateKey',
  authorization: `Bearer ${key}`,
  ca: ca.cert,
});
const limited = { rateLimits: [{ name: 'm', limit: 1_000_000_000n, window: { seconds: 86_400n } }] };

async function start(): Promise<void> {
  server = await spawnServer(url, folder, { ...settings, ...INSPECTABLE });
  key = readFileSync(join(folder, 'admin.key'), 'utf8').trim();
}

beforeAll(async () => {
  writeFileSync(settings.AUDIT_CHAIN_KEY_FILE, 'k'.repeat(32));
  renewCertificate();
  await start();
});
afterAll(async () => {
  await server.end('SIGKILL');
  rmSync(folder, { recursive: true });
});

/** The status of a request on a connection of its own, which ends with it. */
function newConnection(): Promise<number | undefined> {
  const options = {
    host: '127.0.0.1',
    port: server.ports.http,
    path: '/healthz',
    ca: ca.cert,
    agent: false as const,
  };
  return new Promise((resolve, reject) => {
    get(options, (response) => response.resume().once('end', () => resolve(response.statusCode))).once(
      'error',
      reject,
    );
  });
}

/** Rotates, revokes and imports; each answer is checked by the next question. */
async function administer(clients: Clients): Promise<void> {
  const made = await makeKey(clients, { scopes: ['traces:read'] });
  expect(await decisionOf(clients, made.secret)).toBe('VALID');
  const { secret } = await clients.admin.rotateKey({
    id: made.id,
    mode: RotationMode.FORCED,
    grace: { seconds: 0n },
  });
  expect(await decisionOf(clients, made.secret)).toBe('ROTATED');
  expect(await decisionOf(clients, secret)).toBe('VALID');
  await clients.admin.revokeKey({ id: made.id, reason: 1 });
  expect(await decisionOf(clients, secret)).toBe('REVOKED');
  const secrets = Array.from({ length: 100 }, mintSecret);
  const { results } = await clients.admin.importKeys({
    keys: secrets.map((each, i) => ({
      name: `imported ${i}`,
      ownerId: 'soak',
      keyType: KeyType.SERVICE,
      scopes: ['traces:read'],
      keyHash: createHash('sha256').update(each).digest('hex'),
    })),
  });
  expect(results).toHaveLength(100);
  expect(await decisionOf(clients, secrets[99] ?? '')).toBe('VALID');
}

async function backUp({ admin }: Clients, name: string): Promise<void> {
  for await (const _ of admin.createBackup({ name }));
}

/** Repeats a chore until the load is over. On a busy machine a call beyond what the server carries is refused. */
async function until(load: Promise<unknown>, chore: () => Promise<unknown>, pauseMs = 250): Promise<number> {
  let over = false;
  const end = load.finally(() => {
    over = true;
  });
  let done = 0;
  // At least once, however short the round is.
  do {
    try {
      await chore();
      done++;
    } catch (error) {
      if (ConnectError.from(error).code !== Code.ResourceExhausted) throw error;
    }
    // A pause, so that chores do not become the load.
    await Promise.race([end, new Promise((resolve) => setTimeout(resolve, pauseMs))]);
  } while (!over);
  await end;
  return done;
}

const residentMiB = () =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.child.pid}/status`, 'utf8'))?.[1]) / 1024;

async function usesOf({ admin }: Clients, keyId: string): Promise<number> {
  const { rows } = await admin.getUsage({ keyId });
  return Number(rows.reduce((sum, { count }) => sum + count, 0n));
}

describe(`${MINUTES} minutes at half of the capacity`, () => {
  it(
    'with rotations, revocations, imports, backups, renewed certificates and a hostile client: no event is lost, memory keeps its level',
    async () => {
      const clients = connected();
      const asked = await makeKey(clients, limited);
      const message = messageOf(asked.secret);
      const attacker = new AttackerProcess();
      const attacks: string[] = [];
      const attack = () => {
        if (attacks.length === 0) attacks.push(...ATTACKS.map(({ name }) => name));
        const name = attacks.shift() ?? '';
        const ms = Math.min(5_000, SECONDS * 500);
        return attacker.attack({ name, port: server.ports.http, tls: true, ms });
      };
      // The capacity beside the hostile client, since both share this machine.
      let calls = LONG ? 300_000 : 2_000;
      const full = closedLoop(target(), calls, () => message);
      await until(full, attack);
      const half = (await full) / 2;
      const levels: number[] = [];
      try {
        for (let round = 0; round < ROUNDS; round++) {
          const load = openLoop(target(), half, SECONDS, () => message);
          const [took, administered, renewed, hostile] = await Promise.all([
            load,
            until(load, () => administer(clients)),
            until(
              load,
              async () => {
                renewCertificate();
                expect(await newConnection()).toBe(200);
              },
              // The server looks at its files so often.
              2_000,
            ),
            until(load, attack),
            // The copy has the size of the store: of the first rounds it is enough.
            round === 1 ? backUp(clients, 'soak.backup') : undefined,
          ]);
          calls += took.length;
          await collectGarbage(server);
          levels.push(residentMiB());
          const at = (part: number) => (took[Math.floor(took.length * part)] ?? Number.NaN).toFixed(1);
          if (LONG)
            process.stdout.write(
              `round ${round}: ${took.length} calls, p50 ${at(0.5)} p90 ${at(0.9)} p99 ${at(0.99)} ms, ${Math.round(levels.at(-1) ?? 0)} MiB, ${refused} refused so far, ${administered} × administered, ${renewed} certificates, ${hostile} attacks\n`,
            );
        }
      } finally {
        attacker.stop();
      }
      expect(await usesOf(clients, asked.id)).toBe(calls - refused);
      const verified = await clients.admin.verifyAudit({});
      expect(verified).toMatchObject({ intact: true });
      expect(Number(verified.checkedEvents)).toBeGreaterThan(calls);
      const growth = (levels.at(-1) ?? 0) - (levels[MIDDLE] ?? 0);
      expect(growth, levels.map(Math.round).join(', ')).toBeLessThan(MAX_GROWTH_MIB);
    },
    (2 * MINUTES + 30) * 60_000,
  );
});

describe(`a backup that is made while ${CALLS_A_SECOND} calls a second are served`, () => {
  it(
    'brings back nothing that was revoked, narrowed or rotated since',
    async () => {
      const clients = connected();
      const make = () => makeKey(clients, { scopes: ['traces:*'] });
      const [revoked, narrowed, rotated, untouched] = [
        await make(),
        await make(),
        await make(),
        await make(),
      ];
      const asked = await makeKey(clients, limited);
      const message = messageOf(asked.secret);
      const calls = LONG ? CALLS_A_SECOND * 20 : CALLS_A_SECOND * 2;
      const refusedBefore = refused;
      const load = openLoop(target(), CALLS_A_SECOND, calls / CALLS_A_SECOND, () => message);
      await backUp(clients, 'loaded.backup');
      await clients.admin.revokeKey({ id: revoked.id, reason: 1 });
      await clients.admin.updateKey({
        key: { id: narrowed.id, scopes: ['traces:read'] },
        updateMask: { paths: ['scopes'] },
      });
      const { secret: successor } = await clients.admin.rotateKey({
        id: rotated.id,
        mode: RotationMode.FORCED,
        grace: { seconds: 0n },
      });
      expect((await load).length).toBe(calls);
      expect(await usesOf(clients, asked.id)).toBe(calls - (refused - refusedBefore));
      await server.end('SIGTERM');
      const restored = await apikeyd(['restore', join(folder, 'loaded.backup')], {
        env: { ...settings, STORE_URL: url },
      });
      expect(restored.code, restored.stderr).toBe(0);
      await start();
      const after = connected();
      const about = { requiredScope: 'traces:write' };
      expect(await decisionOf(after, revoked.secret)).toBe('REVOKED');
      expect(await decisionOf(after, narrowed.secret, about)).toBe('INSUFFICIENT_SCOPE');
      expect(await decisionOf(after, rotated.secret)).toBe('ROTATED');
      expect(await decisionOf(after, successor)).toBe('VALID');
      expect(await decisionOf(after, untouched.secret, about)).toBe('VALID');
      const { events } = await after.admin.listAuditEvents({ outcome: 'OK', pageSize: 1_000 });
      const again = events.filter(({ method }) => method === 'apikeyd/reconcile').map(({ keyId }) => keyId);
      for (const { id } of [revoked, narrowed, rotated]) expect(again).toContain(id);
      expect(await after.admin.verifyAudit({})).toMatchObject({ intact: true });
    },
    30 * 60_000,
  );
});

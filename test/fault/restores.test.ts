// If this fails, a revocation that was answered is gone after kill -9 and an earlier copy of the store, or a restore that is killed loses the store.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { apikeyd, type ServerProcess, spawnServer } from '../support/process.ts';
import { type Clients, clientsOf } from '../support/server.ts';

const ROUNDS = process.env.LONG ? 60 : 1;
const KEYS_A_ROUND = 24;
const CALLERS = 6;

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-restores-'));
afterAll(() => rmSync(folder, { recursive: true }));
const url = `sqlite:${folder}/apikeyd.db`;
const settings = { AUDIT_CHAIN_KEY_FILE: join(folder, 'chain.key'), BACKUP_DIR: folder, CONSOLE: 'false' };
writeFileSync(settings.AUDIT_CHAIN_KEY_FILE, 'k'.repeat(32));

async function serving(more: Record<string, string> = {}): Promise<ServerProcess & { clients: Clients }> {
  const server = await spawnServer(url, folder, { ...settings, ...more });
  const key = readFileSync(join(folder, 'admin.key'), 'utf8').trim();
  return { ...server, clients: clientsOf(server.ports, 'grpc', key) };
}

type Made = Awaited<ReturnType<typeof makeKey>>;
const keys: Made[] = [];

/** Narrows a key in one of four ways; answers the decision that its first secret has from then on. */
async function narrow({ admin }: Clients, { id }: Made, n: number): Promise<string> {
  const ways = [
    () => admin.revokeKey({ id, reason: 1 }).then(() => 'REVOKED'),
    () =>
      admin
        .updateKey({ key: { id, disabled: true }, updateMask: { paths: ['disabled'] } })
        .then(() => 'DISABLED'),
    () => admin.expireKey({ id }).then(() => 'EXPIRED'),
    () => admin.rotateKey({ id, mode: RotationMode.FORCED, grace: { seconds: 0n } }).then(() => 'ROTATED'),
  ];
  return (ways[n % ways.length] as () => Promise<string>)();
}

beforeAll(async () => {
  const server = await serving();
  for (let n = 0; n < ROUNDS * KEYS_A_ROUND; n++) keys.push(await makeKey(server.clients));
  for await (const _ of server.clients.admin.createBackup({ name: 'one' }));
  await server.end('SIGTERM');
});

describe('a change that was answered before kill -9', () => {
  const answered = new Map<number, string>();

  async function killedAt(round: number): Promise<void> {
    const server = await serving({ AUDIT_ANCHOR_FILE: 'off' });
    let left = 1 + ((round * 7919) % (KEYS_A_ROUND - 2));
    let next = round * KEYS_A_ROUND;
    const end = next + KEYS_A_ROUND;
    const caller = async () => {
      for (let n = next++; n < end; n = next++) {
        answered.set(n, await narrow(server.clients, keys[n] as Made, n));
        if (--left === 0) server.child.kill('SIGKILL');
      }
    };
    await Promise.allSettled(Array.from({ length: CALLERS }, caller));
    await server.end('SIGKILL');
  }

  it('holds after an earlier copy of the store took its place', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      await killedAt(round);
      for (const name of readdirSync(folder).filter((name) => /^apikeyd\.db(-wal|-shm)?$/.test(name)))
        rmSync(join(folder, name));
      cpSync(join(folder, 'one'), join(folder, 'apikeyd.db'));
      const again = await serving({ AUDIT_ANCHOR_FILE: 'off' });
      expect(answered.size).toBeGreaterThan(round);
      for (const [n, decision] of answered)
        expect(await decisionOf(again.clients, keys[n]?.secret ?? ''), `key ${n}, round ${round}`).toBe(
          decision,
        );
      expect(await again.clients.admin.verifyAudit({})).toMatchObject({ intact: true });
      await again.end('SIGTERM');
    }
  });
});

describe('a killed restore', () => {
  it('leaves either the old store or the backup, and revoked keys stay revoked', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      // By the copies of the tests before this one.
      rmSync(`${settings.AUDIT_CHAIN_KEY_FILE}.anchor`, { force: true });
      const server = await serving();
      const key = keys[round] as Made;
      await server.clients.admin.revokeKey({ id: key.id, reason: 1 });
      await server.end('SIGTERM');
      let looks = 20 + ((round * 37) % 300);
      const env = { ...settings, STORE_URL: url };
      await apikeyd(['restore', join(folder, 'one')], { env, killWhen: () => looks-- <= 0 });
      expect(existsSync(join(folder, 'apikeyd.db'))).toBe(true);
      const again = await serving();
      expect(await decisionOf(again.clients, key.secret)).toBe('REVOKED');
      expect(await again.clients.admin.verifyAudit({})).toMatchObject({ intact: true });
      await again.end('SIGTERM');
      for (const name of readdirSync(folder).filter((name) => name.includes('before-restore')))
        rmSync(join(folder, name));
    }
  });
});

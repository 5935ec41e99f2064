// If this fails, a guard answers VALID after RevokeKey, or another narrowing change, has returned.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { afterAll, afterEach, beforeAll, expect, inject, it, vi } from 'vitest';
import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { decisionOf, makeKey, onEachStore } from '../rpc/cases.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { run, type ServerProcess, spawnServer } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { type Clients, clientsOf, freshDatabase, type StoreKind } from '../support/server.ts';
import { ROOT, tool } from '../support/tools.ts';

const ROUNDS = process.env.LONG ? 2_000 : 12;

interface Answer {
  readonly outcome: string;
  readonly local: boolean;
}

/** A guard in a process of its own, which can be stopped. */
class GuardProcess {
  readonly child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor({ command, args, env = {} }: Probe, address: string, keyFile: string) {
    this.child = spawn(command, [...args, address, keyFile], {
      env: { ...process.env, ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#answers = createInterface(this.child.stdout as Readable)[Symbol.asyncIterator]();
  }

  async ask(key: string, scope = 'traces:read'): Promise<Answer> {
    return this.#send({ key, scope }) as Promise<Answer>;
  }

  /** Sets its wall clock, so much ahead of the machine's. */
  async setClock(clockMs: number): Promise<void> {
    await this.#send({ clockMs });
  }

  async #send(line: object): Promise<unknown> {
    this.child.stdin?.write(`${JSON.stringify(line)}\n`);
    return JSON.parse((await this.#answers.next()).value);
  }

  /** Until the guard decides about the key by itself. */
  async prime(key: string): Promise<void> {
    const primed = { outcome: 'VALID', local: true };
    await vi.waitFor(async () => expect(await this.ask(key)).toEqual(primed), HANGS_MS);
  }

  async end(): Promise<void> {
    const ended = once(this.child, 'exit');
    this.child.stdin?.end();
    await ended;
  }
}

interface Probe {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Record<string, string>;
}

/** Stands between a guard and its server, and can be cut. */
class Cable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #cut = false;

  private constructor(to: () => number) {
    this.#server = createServer((near) => {
      near.on('error', () => {});
      if (this.#cut) return void near.destroy();
      const far = connectTcp(to(), '127.0.0.1').on('error', () => near.destroy());
      near.pipe(far).pipe(near);
      for (const socket of [near, far])
        this.#sockets.add(socket.on('close', () => this.#sockets.delete(socket)));
    });
  }

  static async lay(to: () => number): Promise<Cable> {
    const cable = new Cable(to);
    cable.#server.listen(0, '127.0.0.1');
    await once(cable.#server, 'listening');
    return cable;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Nothing passes, and nobody is told. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.pause().unpipe();
  }

  mend(): void {
    this.#cut = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  end(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

/**
 * The probes of one guard on one store.
 * @param setsClock false for a language in which only the library's own tests can set its wall clock
 */
function probes(
  kind: StoreKind,
  probeOf: (folder: string) => Probe | Promise<Probe>,
  setsClock = true,
): void {
  const database = freshDatabase(kind, inject('mongoUri'));
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-guards-'));
  const keyFile = join(folder, 'guard.key');
  const settings = { CONSOLE: 'false', ADMIN_BOOTSTRAP_KEY: 'audit_v1_guardsguardsguardsguar' };
  let admin: Clients;
  let adminServer: ServerProcess;
  /** On MongoDB another one than changes are made on. */
  let server: ServerProcess;
  let cable: Cable;
  let guard: GuardProcess;

  const start = () => spawnServer(database.url, folder, settings);
  const servers = async () => {
    server = await start();
    adminServer = kind === 'mongo' ? await start() : server;
    admin = clientsOf(adminServer.ports, 'grpc', settings.ADMIN_BOOTSTRAP_KEY);
  };
  beforeAll(async () => {
    await servers();
    writeFileSync(keyFile, (await makeKey(admin, { scopes: ['apikeys:validate'] })).secret);
    cable = await Cable.lay(() => server.ports.grpc);
    guard = new GuardProcess(await probeOf(folder), cable.address, keyFile);
  }, 120_000);
  afterEach(() => cable.mend());
  afterAll(async () => {
    await guard?.end();
    cable?.end();
    for (const each of new Set([server, adminServer])) await each?.end('SIGTERM');
    rmSync(folder, { recursive: true });
    await database.drop();
  }, 60_000);

  const update = (id: string, fields: object, ...paths: string[]) =>
    admin.admin.updateKey({ key: { id, ...fields }, updateMask: { paths } });
  const changes: readonly ((id: string) => Promise<unknown>)[] = [
    (id) => admin.admin.revokeKey({ id, reason: 1 }),
    (id) => admin.admin.expireKey({ id }),
    (id) => admin.admin.rotateKey({ id, mode: RotationMode.FORCED, grace: { seconds: 0n } }),
    (id) => update(id, { disabled: true }, 'disabled'),
    (id) => update(id, { scopes: ['metrics:read'] }, 'scopes'),
    (id) => update(id, { ipAllowlist: ['192.0.2.0/24'] }, 'ip_allowlist'),
  ];
  const primed = async () => {
    const made = await makeKey(admin, { localValidation: true });
    await guard.prime(made.secret);
    return made;
  };

  it('a change holds for the guard when it has returned', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const { id, secret } = await primed();
      const change = changes[round % changes.length] ?? changes[0];
      await change?.(id);
      expect((await guard.ask(secret)).outcome, `round ${round}`).not.toBe('VALID');
    }
  }, 3_600_000);

  it('also for a guard that was stopped meanwhile', async () => {
    const { id, secret } = await primed();
    guard.child.kill('SIGSTOP');
    await admin.admin.revokeKey({ id, reason: 1 });
    const asked = guard.ask(secret);
    guard.child.kill('SIGCONT');
    expect((await asked).outcome).not.toBe('VALID');
  });

  it('also for a guard that is cut off, which then makes no decision at all', async () => {
    const { id, secret } = await primed();
    cable.cut();
    await admin.admin.revokeKey({ id, reason: 1 });
    expect(await guard.ask(secret)).toEqual({ outcome: 'UNAVAILABLE', local: false });
    cable.mend();
    await vi.waitFor(async () => expect((await guard.ask(secret)).outcome).toBe('REVOKED'), HANGS_MS);
  });

  it.runIf(setsClock).each(process.env.LONG ? [-3_600_000, -300, 300, 3_600_000] : [-3_600_000, 300])(
    'also for a guard that is cut off, its wall clock set by %i ms',
    async (ms) => {
      const { id, secret } = await primed();
      cable.cut();
      await guard.setClock(ms);
      await admin.admin.revokeKey({ id, reason: 1 });
      expect(await guard.ask(secret)).toEqual({ outcome: 'UNAVAILABLE', local: false });
      cable.mend();
      await vi.waitFor(async () => expect((await guard.ask(secret)).outcome).toBe('REVOKED'), HANGS_MS);
      await guard.setClock(0);
    },
  );

  it.runIf(setsClock)('a guard whose wall clock is an hour off decides nothing by itself', async () => {
    const { secret } = await primed();
    for (const ms of [-3_600_000, 3_600_000]) {
      await guard.setClock(ms);
      for (let i = 0; i < 5; i++) expect(await guard.ask(secret)).toEqual({ outcome: 'VALID', local: false });
    }
    await guard.setClock(0);
    await guard.prime(secret);
  });

  it('also when the server of the guard is killed and starts again meanwhile', async () => {
    const { id, secret } = await primed();
    await server.end('SIGKILL');
    if (kind === 'sqlite') await servers();
    const revoked = admin.admin.revokeKey({ id, reason: 1 });
    await revoked;
    expect((await guard.ask(secret)).outcome).not.toBe('VALID');
    if (kind === 'mongo') server = await start();
    cable.mend();
    await vi.waitFor(async () => expect((await guard.ask(secret)).outcome).toBe('REVOKED'), HANGS_MS);
  }, 60_000);

  it('also when the server of the guard stops cleanly', async () => {
    const { id, secret } = await primed();
    const stopping = server.end('SIGTERM');
    if (kind === 'sqlite') {
      await stopping;
      await servers();
    }
    await admin.admin.revokeKey({ id, reason: 1 });
    expect((await guard.ask(secret)).outcome).not.toBe('VALID');
    await stopping;
    if (kind === 'mongo') server = await start();
    cable.mend();
    await vi.waitFor(async () => expect((await guard.ask(secret)).outcome).toBe('REVOKED'), HANGS_MS);
  }, 60_000);

  it('every decision of the guard is in the audit', async () => {
    const { id, secret } = await primed();
    // The one that primed; on a busy machine a lease may end between two of these, which then go to the server.
    let decided = 1n;
    for (let i = 0; i < 50; i++) {
      const { outcome, local } = await guard.ask(secret);
      expect(outcome).toBe('VALID');
      if (local) decided++;
    }
    expect(decided).toBeGreaterThan(1n);
    expect(await decisionOf(admin, secret)).toBe('VALID');
    await vi.waitFor(async () => {
      const { events } = await admin.admin.listAuditEvents({ keyId: id, outcome: 'LOCAL_VALID' });
      expect(events.reduce((sum, { count }) => sum + count, 0n)).toBe(decided);
    }, HANGS_MS);
    expect(await admin.admin.verifyAudit({})).toMatchObject({ intact: true });
  });
}

const FLAGS = ['--disable-warning=ExperimentalWarning'];
onEachStore('the guard in TypeScript on %s', (kind) =>
  probes(kind, () => ({
    command: process.execPath,
    args: [...FLAGS, join(ROOT, 'test/fault/guard-probe.ts')],
  })),
);

/** The servers are the same for every language: each other guard has one store, and both in the long run. */
const on = (first: StoreKind): StoreKind[] => (process.env.LONG ? ['sqlite', 'mongo'] : [first]);

for (const kind of on('sqlite'))
  requires('python', ...(kind === 'mongo' ? (['mongodb'] as const) : [])).describe(
    `the guard in Python on ${kind}`,
    () =>
      probes(kind, () => ({
        command: tool('python'),
        args: [join(ROOT, 'test/fault/guard_probe.py')],
        env: { PYTHONPATH: join(ROOT, 'clients/python/src') },
      })),
  );

for (const kind of on('mongo'))
  requires('go', ...(kind === 'mongo' ? (['mongodb'] as const) : [])).describe(
    `the guard in Go on ${kind}`,
    () =>
      probes(
        kind,
        async (folder) => {
          const command = join(folder, 'guard-probe');
          const env = { GOFLAGS: '-mod=readonly', GOPROXY: 'off', GOTOOLCHAIN: 'local' };
          const built = await run(tool('go'), ['build', '-o', command, '.'], {
            cwd: join(ROOT, 'test/fault/guard-probe'),
            env,
          });
          expect(built.stderr).toBe('');
          return { command, args: [] };
        },
        false,
      ),
  );

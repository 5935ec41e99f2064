// If this fails, a revoked key is answered VALID on some process after RevokeKey has returned: promise one is a lie.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, inject, it, vi } from 'vitest';
import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { mintEtag, mintSecret } from '../../src/keys/secret.ts';
import { systemClock } from '../../src/server/serve.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import { inLanes } from '../e2e/load.ts';
import { decide, decisionOf, limit, makeKey } from '../rpc/cases.ts';
import { LOCKOUT } from '../store/contract/harness.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { entryWith } from '../support/keys.ts';
import { run, type ServerProcess, spawnServer } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { type Clients, clientsOf, freshDatabase } from '../support/server.ts';
import { Wire } from '../support/wire.ts';

const mongoUri = inject('mongoUri');
const ROUNDS = process.env.LONG ? 2_000 : 54;
const LEASE_MS = 1_000;

interface Member {
  readonly server: ServerProcess;
  readonly clients: Clients;
}

type Made = Awaited<ReturnType<typeof makeKey>>;
/** A key, a question that is VALID until the change, and the change. */
type Narrowing = (
  on: Clients,
) => Promise<{ made: Made; secret?: string; ask?: object; change: () => Promise<unknown> }>;

const updated = (on: Clients, id: string, key: object, path: string) =>
  on.admin.updateKey({ key: { id, ...key }, updateMask: { paths: [path] } });

const NARROWINGS: Record<string, Narrowing> = {
  revoke: async (on) => {
    const made = await makeKey(on);
    return { made, change: () => on.admin.revokeKey({ id: made.id, reason: 1 }) };
  },
  'revoke by its holder': async (on) => {
    const made = await makeKey(on);
    return { made, change: () => on.auth.revokeOwnKey({ key: made.secret, reason: 1 }) };
  },
  expire: async (on) => {
    const made = await makeKey(on);
    return { made, change: () => on.admin.expireKey({ id: made.id }) };
  },
  disable: async (on) => {
    const made = await makeKey(on);
    return { made, change: () => updated(on, made.id, { disabled: true }, 'disabled') };
  },
  'fewer scopes': async (on) => {
    const made = await makeKey(on, { scopes: ['a:b', 'c:d'] });
    return {
      made,
      ask: { requiredScope: 'a:b' },
      change: () => updated(on, made.id, { scopes: ['c:d'] }, 'scopes'),
    };
  },
  'a tighter allow-list': async (on) => {
    const made = await makeKey(on);
    const change = () => updated(on, made.id, { ipAllowlist: ['10.0.0.0/8'] }, 'ip_allowlist');
    return { made, ask: { clientIp: '192.0.2.200' }, change };
  },
  'a lower limit': async (on) => {
    const made = await makeKey(on, { rateLimits: [limit('m', 1_000)] });
    const change = () => updated(on, made.id, { rateLimits: [limit('m', 1)] }, 'rate_limits');
    return { made, ask: { cost: 2n }, change };
  },
  'a forced rotation': async (on) => {
    const made = await makeKey(on);
    const change = () =>
      on.admin.rotateKey({ id: made.id, mode: RotationMode.FORCED, grace: { seconds: 0n } });
    return { made, change };
  },
  'an early completion': async (on) => {
    const made = await makeKey(on);
    await on.admin.rotateKey({ id: made.id });
    return { made, change: () => on.admin.completeRotation({ id: made.id }) };
  },
};
const KINDS = Object.entries(NARROWINGS);

requires('mongodb', 'bash').describe('several processes on one MongoDB', () => {
  const database = freshDatabase('mongo', mongoUri);
  const admin = mintSecret();
  let wire: Wire;
  let wired: string;
  const members: Member[] = [];
  const join = async (url = database.url): Promise<Member> => {
    const server = await spawnServer(url, database.folder, { ADMIN_BOOTSTRAP_KEY: admin });
    const member = { server, clients: clientsOf(server.ports, 'grpc', admin) };
    members.push(member);
    return member;
  };
  let a: Member;
  let b: Member;
  let c: Member;
  beforeAll(async () => {
    ({ wire, url: wired } = await Wire.to(database.url));
    a = await join();
    [b, c] = await Promise.all([join(), join(wired)]);
  });
  afterEach(() => wire.mend());
  afterAll(async () => {
    for (const { server } of members) {
      server.child.kill('SIGCONT');
      await server.end('SIGTERM');
    }
    await wire.close();
    await database.drop();
  });

  /** Until a member answers from a record that it keeps. */
  const primed = async ({ clients }: Member, secret: string, ask: object) => {
    for (;;) {
      const answer = await decide(clients, secret, ask);
      expect(answer.valid).toBe(true);
      const age = answer.cacheAge;
      if (age !== undefined && (age.seconds > 0n || age.nanos > 0)) return;
      await delay(2);
    }
  };
  const outcomeOf = async ({ clients }: Member, secret: string, ask: object) => {
    try {
      return await decisionOf(clients, secret, ask);
    } catch {
      return 'no decision';
    }
  };

  it(`answers no call VALID that starts after the change has returned, in ${ROUNDS} rounds of every kind`, async () => {
    const wrong: string[] = [];
    let joined: Promise<Member> | undefined;
    await inLanes(ROUNDS, 27, async (round) => {
      const [kind, narrowing] = KINDS[round % KINDS.length] ?? (KINDS[0] as [string, Narrowing]);
      const { made, secret = made.secret, ask = {}, change } = await narrowing(a.clients);
      const asked = [b, c];
      // One that joins in the middle is waited for like the others.
      if (round >= ROUNDS / 2) {
        joined ??= join();
        asked.push(await joined);
      }
      await Promise.all(asked.map((member) => primed(member, secret, ask)));
      await change();
      const outcomes = await Promise.all(asked.map((member) => outcomeOf(member, secret, ask)));
      if (outcomes.includes('VALID')) wrong.push(`${kind}: ${outcomes}`);
    });
    expect(wrong).toEqual([]);
  });

  it('finds VALID answers after a revocation when RevokeKey does not wait for leases', async () => {
    // The same change by a process that waits for nobody: a key store whose own process keeps no record, told that
    // there is no other. If the probes below were all denied, the test above would prove nothing.
    const lease = { pollMs: 250, leaseMs: LEASE_MS, caches: false };
    const store = await openMongoStore({
      url: database.url,
      clock: systemClock,
      lockout: LOCKOUT,
      lease,
      warn: () => {},
    });
    let valid = 0;
    try {
      // A poll may come right after the changes of a batch, so several are made.
      for (let batch = 0; batch < 20 && valid === 0; batch++)
        await inLanes(10, 10, async () => {
          const made = await makeKey(a.clients);
          await primed(b, made.secret, {});
          const key = await store.keys.get(made.id);
          if (key === undefined) throw new Error('no key');
          const revoked = {
            ...key,
            revokeTime: Date.now(),
            revokeReason: 'SUPERSEDED' as const,
            etag: mintEtag(),
          };
          // Not awaited: the probes are sent before the wait for leases has ended.
          const change = store.keys.replace(revoked, key.etag, 'REVOKED', entryWith());
          // Where something else fails first, that is the failure to show.
          change.catch(() => {});
          while ((await store.keys.get(made.id))?.revokeTime === undefined) await delay(1);
          if ((await outcomeOf(b, made.secret, {})) === 'VALID') valid++;
          await change;
          expect(await outcomeOf(b, made.secret, {})).toBe('REVOKED');
        });
    } finally {
      await store.close();
    }
    expect(valid).toBeGreaterThan(0);
  });

  it('a process that is stopped during a revocation denies the key afterwards', async () => {
    const keys = await Promise.all(Array.from({ length: 10 }, () => makeKey(a.clients)));
    for (const key of keys) await primed(b, key.secret, {});
    b.server.child.kill('SIGSTOP');
    await Promise.all(keys.map(({ id }) => a.clients.admin.revokeKey({ id, reason: 1 })));
    // These wait in the socket of the stopped process.
    const probes = keys.map(({ secret }) => outcomeOf(b, secret, {}));
    b.server.child.kill('SIGCONT');
    expect(new Set(await Promise.all(probes))).toEqual(new Set(['REVOKED']));
  });

  it.each(['cut', 'hold'] as const)(
    'no revoked key is VALID on a process whose store connection is %s, or after it is mended',
    async (fault) => {
      const keys = await Promise.all(Array.from({ length: 5 }, () => makeKey(a.clients)));
      for (const key of keys) await primed(c, key.secret, {});
      wire[fault]();
      await Promise.all(keys.map(({ id }) => a.clients.admin.revokeKey({ id, reason: 1 })));
      const begun = Date.now();
      const during = await Promise.all(keys.map(({ secret }) => outcomeOf(c, secret, {})));
      expect(Date.now() - begun).toBeLessThan(10_000);
      expect(during).not.toContain('VALID');
      wire.mend();
      const { secret } = await makeKey(a.clients);
      while ((await outcomeOf(c, secret, {})) !== 'VALID') expect(Date.now() - begun).toBeLessThan(HANGS_MS);
      for (const key of keys) expect(await outcomeOf(c, key.secret, {})).toBe('REVOKED');
    },
  );

  // Every suite that uses the database at the same time would be frozen with it.
  if (process.env.LONG)
    it('no revoked key is VALID while the whole database is frozen, or after it', async () => {
      const keys = await Promise.all(Array.from({ length: 5 }, () => makeKey(a.clients)));
      for (const key of keys) await primed(b, key.secret, {});
      await run('bash', ['test/support/ferretdb.sh', 'freeze']);
      await delay(1.2 * LEASE_MS);
      const during = await Promise.all(keys.map(({ secret }) => outcomeOf(b, secret, {})));
      await delay(30_000);
      await run('bash', ['test/support/ferretdb.sh', 'thaw']);
      expect(during).not.toContain('VALID');
      const begun = Date.now();
      for (const { id } of keys) await a.clients.admin.revokeKey({ id, reason: 1 });
      for (const { secret } of keys) expect(await outcomeOf(b, secret, {})).toBe('REVOKED');
      process.stderr.write(`recovered from 30 s frozen in ${Date.now() - begun} ms\n`);
    });

  it('a revocation waits for no lease of a process that has left or died, or when there is none', async () => {
    const lonely = freshDatabase('mongo', mongoUri);
    const one = await spawnServer(lonely.url, lonely.folder, { ADMIN_BOOTSTRAP_KEY: admin });
    const clients = clientsOf(one.ports, 'grpc', admin);
    /** A call that waits for other processes takes at least this long. */
    const WAITS_MS = 1_200;
    const took = async () => {
      const { id } = await makeKey(clients);
      const begun = performance.now();
      await clients.admin.revokeKey({ id, reason: 1 });
      return performance.now() - begun;
    };
    /** A call on a busy machine may be slow without any wait: one that was not is enough. */
    const waitsForNobody = async (withinMs: number) => {
      const begun = Date.now();
      while ((await took()) > WAITS_MS) expect(Date.now() - begun).toBeLessThan(withinMs);
    };
    const other = () => spawnServer(lonely.url, lonely.folder, { ADMIN_BOOTSTRAP_KEY: admin });
    try {
      await waitsForNobody(HANGS_MS);
      const leaver = await other();
      expect(await took()).toBeGreaterThan(WAITS_MS);
      await leaver.end('SIGTERM');
      // A registration that was left behind would be waited for over ten of its leases.
      await waitsForNobody(8 * LEASE_MS);
      await (await other()).end('SIGKILL');
      expect(await took()).toBeGreaterThan(WAITS_MS);
      // Its counter does not change; after ten of its leases its registration is removed.
      await waitsForNobody(HANGS_MS);
    } finally {
      await one.end('SIGTERM');
      await lonely.drop();
    }
  });

  it('locks an address out on every process', async () => {
    const clientIp = '198.51.100.77';
    for (let i = 0; i < 5; i++) await decide(a.clients, 'x', { clientIp });
    const { secret } = await makeKey(a.clients);
    const begun = Date.now();
    while ((await outcomeOf(b, secret, { clientIp })) !== 'LOCKED_OUT')
      expect(Date.now() - begun).toBeLessThan(HANGS_MS);
  });

  it('min_revision keeps a process that is behind from deciding on older data', async () => {
    const { id, secret } = await makeKey(a.clients);
    const { revision } = await a.clients.admin.revokeKey({ id, reason: 1 });
    const answer = await decide(b.clients, secret, { minRevision: revision });
    expect(answer.valid).toBe(false);
    expect(answer.revision).toBeGreaterThanOrEqual(revision);
  });

  it('delivers alerts of one process to subscribers of another', async () => {
    const stop = new AbortController();
    const clientIp = '198.51.100.78';
    const seen = (async () => {
      for await (const { alert } of b.clients.admin.watchAlerts({}, { signal: stop.signal }))
        if (alert?.clientIp === clientIp) return true;
      return false;
    })();
    // Its event is there when the subscription is.
    const opened = { method: 'apikey.v1.ApiKeyAdmin/WatchAlerts' };
    await vi.waitFor(
      async () => expect((await b.clients.admin.listAuditEvents(opened)).events).toHaveLength(1),
      HANGS_MS,
    );
    for (let i = 0; i < 5; i++) await decide(a.clients, 'x', { clientIp });
    expect(await seen).toBe(true);
    stop.abort();
  });
});

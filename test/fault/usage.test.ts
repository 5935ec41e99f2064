// If this fails, GetUsage and the audit disagree after processes were killed: an invoice or a decision rests on a wrong count.
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { inLanes } from '../e2e/load.ts';
import { decide, makeKey } from '../rpc/cases.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { type ServerProcess, spawnServer } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { type Clients, clientsOf, freshDatabase } from '../support/server.ts';

const ROUNDS = process.env.LONG ? 100 : 1;
const CALLS = 300;
const PROCESSES = 3;
const ADMIN = 'audit_v1_usageusageusageusageuu';

requires('mongodb').describe(`${PROCESSES} processes on one database, one killed after the other`, () => {
  const database = freshDatabase('mongo', inject('mongoUri'));
  const members: { server: ServerProcess; clients: Clients }[] = [];
  const start = async () => {
    // Short leases: a sweep counts for a process when ten of them have passed without a sign of it.
    const server = await spawnServer(database.url, database.folder, {
      ADMIN_BOOTSTRAP_KEY: ADMIN,
      REVISION_POLL_MS: '100',
      REVISION_LEASE_MS: '500',
      SWEEP_INTERVAL_SECONDS: '1',
    });
    return { server, clients: clientsOf(server.ports, 'grpc', ADMIN) };
  };
  beforeAll(async () => {
    for (let i = 0; i < PROCESSES; i++) members.push(await start());
  });
  afterAll(async () => {
    for (const { server } of members) await server.end('SIGKILL');
    await database.drop();
  });

  const eventsOf = async ({ admin }: Clients, keyId: string) => {
    let [count, pageToken] = [0, ''];
    do {
      const page = await admin.listAuditEvents({ keyId, pageSize: 1_000, pageToken });
      count += page.events.filter(({ outcome }) => outcome.startsWith('DECISION_')).length;
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return count;
  };
  const usesOf = async ({ admin }: Clients, keyId: string) => {
    const { rows } = await admin.getUsage({ keyId });
    return rows.reduce((sum, { count }) => sum + Number(count), 0);
  };

  it(`counts every event once, after ${ROUNDS} rounds of kill -9`, {
    timeout: ROUNDS * 180_000,
  }, async () => {
    const [first] = members;
    if (first === undefined) throw new Error('no process');
    const { id, secret } = await makeKey(first.clients);
    for (let round = 0; round < ROUNDS; round++) {
      const victim = round % PROCESSES;
      let answered = 0;
      await Promise.all(
        members.map(({ clients, server }, member) =>
          inLanes(CALLS, 8, async (i) => {
            if (member === victim && i === CALLS / 2) await server.end('SIGKILL');
            await decide(clients, secret).then(
              () => answered++,
              (error: unknown) => {
                // A killed process answers nothing more.
                if (member !== victim) throw error;
              },
            );
          }),
        ),
      );
      members[victim] = await start();
      const asked = members[(victim + 1) % PROCESSES]?.clients ?? first.clients;
      const events = await eventsOf(asked, id);
      expect(events).toBeGreaterThanOrEqual(answered);
      await expect.poll(() => usesOf(asked, id), { timeout: HANGS_MS, interval: 200 }).toBe(events);
    }
    const asked = members[0]?.clients ?? first.clients;
    expect(await usesOf(asked, id)).toBe(await eventsOf(asked, id));
  });
});

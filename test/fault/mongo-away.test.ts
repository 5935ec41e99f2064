// If this fails, an unavailable database makes unchecked keys VALID, hangs calls, or loses the audit.
import * as grpc from '@grpc/grpc-js';
import { service } from 'grpc-health-check';
import { MongoClient } from 'mongodb';
import { afterEach, expect, inject, it } from 'vitest';
import { decide, decisionOf, failureOf, makeKey } from '../rpc/cases.ts';
import { requires } from '../support/requires.ts';
import { wiredServer } from '../support/wired.ts';

const mongoUri = inject('mongoUri');

requires('mongodb').describe('MongoDB away', () => {
  const wired = wiredServer(mongoUri);

  afterEach(() => wired.wire.mend());

  const ready = async () =>
    (await fetch(`http://127.0.0.1:${wired.server.running.ports.http}/readyz`)).status;
  const until = async (holds: () => Promise<boolean>) => {
    while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 50));
  };
  const works = async (secret: string) => {
    try {
      return (await decide(wired.clients, secret)).valid;
    } catch {
      return false;
    }
  };

  it.each(['cut', 'hold'] as const)(
    '%s: no decision, no hang, NOT_SERVING, then back with the gap counted',
    async (fault) => {
      await until(async () => (await ready()) === 200);
      const { secret } = await makeKey(wired.clients);
      expect(await decisionOf(wired.clients, secret)).toBe('VALID');
      const gapsBefore = await refusedCalls();
      const watched = watchHealth(wired.server.running.ports.grpc);
      wired.wire[fault]();
      const begun = Date.now();
      const failures = await Promise.all(
        Array.from({ length: 5 }, () => failureOf(decide(wired.clients, secret))),
      );
      expect(Date.now() - begun).toBeLessThan(10_000);
      // Decided under the lease and not recorded in time, or not decided: past the lease the store is read.
      for (const { code, reason } of failures)
        expect(['Unavailable AUDIT_UNAVAILABLE', 'Unavailable STORE_UNAVAILABLE']).toContain(
          `${code} ${reason}`,
        );
      const decided = failures.filter(({ reason }) => reason === 'AUDIT_UNAVAILABLE').length;
      expect(
        await failureOf(wired.clients.admin.getKey({ id: 'uid-apikey-0000000000000000' })),
      ).toMatchObject({
        code: 'Unavailable',
      });
      await until(async () => (await ready()) === 503);
      wired.wire.mend();
      await until(() => works(secret));
      await until(async () => (await ready()) === 200);
      await until(async () => watched.seen.length >= 3);
      watched.end();
      expect(watched.seen.slice(0, 3)).toEqual(['SERVING', 'NOT_SERVING', 'SERVING']);
      // The decisions were made and are in the log, late; the refused read is in the gap.
      const events = (
        await wired.clients.admin.listAuditEvents({ outcome: 'DECISION_VALID', pageSize: 1000 })
      ).events;
      expect(events.length).toBeGreaterThanOrEqual(1 + decided);
      await until(async () => (await refusedCalls()) > gapsBefore);
    },
  );

  const refusedCalls = async () => {
    const { events } = await wired.clients.admin.listAuditEvents({ outcome: 'GAP', pageSize: 1000 });
    return events.reduce((sum, event) => sum + Number(event.refusedCalls), 0);
  };

  it('leaves no key without its event and no event without its key, cut at any moment', async () => {
    const { secret } = await makeKey(wired.clients);
    const made: string[] = [];
    let over = false;
    const lanes = Array.from({ length: 8 }, async (_, lane) => {
      for (let i = 0; !over; i++) {
        try {
          made.push((await makeKey(wired.clients, { name: `cut ${lane} ${i}` })).id);
        } catch {
          // Unknown to the caller: the store decides, and must be of one mind.
        }
      }
    });
    await until(async () => made.length > 0);
    for (let cut = 0; cut < 15; cut++) {
      // Uneven pauses, so that the cut falls between different steps of a change.
      await new Promise((resolve) => setTimeout(resolve, 90 + ((cut * 137) % 400)));
      wired.wire.cut();
      await new Promise(setImmediate);
      wired.wire.mend();
    }
    over = true;
    await Promise.all(lanes);
    await until(() => works(secret));
    const client = await new MongoClient(wired.database.url).connect();
    try {
      const db = client.db();
      const log = db.collection<{ _id: string; key_id: string }>('api_key_audit_log');
      const keys = await db
        .collection<{ _id: string; outbox: { id: string }[] }>('api_keys')
        .find({ name: /^cut / })
        .toArray();
      const ids = new Set(keys.map(({ _id }) => _id));
      expect(made.filter((id) => !ids.has(id))).toEqual([]);
      for (const key of keys) {
        const inLog = await log
          .find({ key_id: key._id, method: 'apikey.v1.ApiKeyAdmin/CreateKey', outcome: 'OK' })
          .toArray();
        const riding = key.outbox.filter(({ id }) => !inLog.some(({ _id }) => _id === id));
        // In the log, or still in the document where the sweep finds it; once, never twice.
        expect(inLog.length + riding.length).toBe(1);
        if (made.includes(key._id)) expect(inLog).toHaveLength(1);
      }
      const created = await log.find({ method: 'apikey.v1.ApiKeyAdmin/CreateKey', outcome: 'OK' }).toArray();
      const all = new Set(
        (
          await db
            .collection<{ _id: string }>('api_keys')
            .find({}, { projection: { _id: 1 } })
            .toArray()
        ).map(({ _id }) => _id),
      );
      expect(created.filter(({ key_id }) => !all.has(key_id))).toEqual([]);
    } finally {
      await client.close();
    }
  });
});

/** The states of ApiKeyAuth from Health.Watch, in order. */
function watchHealth(port: number): { seen: string[]; end: () => void } {
  const Health = grpc.makeGenericClientConstructor(service as never, 'Health');
  const client = new Health(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const stream = (client.watch as (request: object) => grpc.ClientReadableStream<{ status: string }>).call(
    client,
    {
      service: 'apikey.v1.ApiKeyAuth',
    },
  );
  const seen: string[] = [];
  stream.on('data', ({ status }) => seen.push(status));
  stream.on('error', () => {});
  return {
    seen,
    end: () => {
      stream.cancel();
      client.close();
    },
  };
}

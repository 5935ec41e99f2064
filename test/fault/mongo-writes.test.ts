// If this fails, a database that fails at one step of a change leaves half of it, or hangs or misleads its caller.
import { create } from '@bufbuild/protobuf';
import { MongoClient } from 'mongodb';
import { expect, inject, it } from 'vitest';
import { ImportedKeySchema } from '../../gen/apikey/v1/admin_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { hashSecret, mintSecret } from '../../src/keys/secret.ts';
import { decide, decisionOf, makeKey } from '../rpc/cases.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { requires } from '../support/requires.ts';
import { wiredServer } from '../support/wired.ts';

const mongoUri = inject('mongoUri');
/** The number of messages of a change and of concurrent work. */
const STEPS = process.env.LONG ? 40 : 14;

requires('mongodb').describe('MongoDB failing at one step', () => {
  const wired = wiredServer(mongoUri);

  const until = async (holds: () => Promise<boolean>) => {
    const begun = Date.now();
    while (!(await holds())) {
      expect(Date.now() - begun).toBeLessThan(20_000);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const works = async () => {
    try {
      await wired.clients.admin.getStats({});
      return true;
    } catch {
      return false;
    }
  };
  const answered = async (call: Promise<unknown>) => {
    const begun = Date.now();
    const outcome = await call.then(
      () => true,
      () => false,
    );
    expect(Date.now() - begun).toBeLessThan(20_000);
    return outcome;
  };

  it.each(Array.from({ length: STEPS }, (_, i) => i + 1))(
    'message %i of a creation and a revocation does not arrive',
    async (n) => {
      const made = await makeKey(wired.clients);
      await decide(wired.clients, made.secret);
      wired.wire.cutAtMessage(n);
      const name = `created ${n}`;
      const mending = until(async () => wired.wire.passed >= n).then(
        () => wired.wire.mend(),
        () => wired.wire.mend(),
      );
      const created = await answered(makeKey(wired.clients, { name }));
      const revoked = await answered(wired.clients.admin.revokeKey({ id: made.id, reason: 1 }));
      wired.wire.mend();
      await mending;
      await until(works);
      const client = await new MongoClient(wired.database.url).connect();
      try {
        const keys = client
          .db()
          .collection<{ _id: string; revoke_time?: Date; outbox: { id: string; change: string }[] }>(
            'api_keys',
          );
        const log = client.db().collection('api_key_audit_log');
        const events = (keyId: string, method: string) =>
          log.countDocuments({ key_id: keyId, method: `apikey.v1.ApiKeyAdmin/${method}`, outcome: 'OK' });
        const found = await keys.find({ name }).toArray();
        expect(found.length).toBe(created ? 1 : found.length);
        for (const key of found) {
          // In the log, or still in the document where the sweep finds it: never nowhere and never twice.
          const riding = key.outbox.filter(({ change }) => change === 'CREATED').length;
          const inLog = await events(key._id, 'CreateKey');
          expect(Math.min(1, riding + inLog)).toBe(1);
          expect(inLog).toBeLessThanOrEqual(1);
        }
        const key = await keys.findOne({ _id: made.id });
        if (revoked) expect(key?.revoke_time).toBeDefined();
        // Later answers follow the state of the store, whatever response the caller got.
        expect(await decisionOf(wired.clients, made.secret)).toBe(
          key?.revoke_time === undefined ? 'VALID' : 'REVOKED',
        );
      } finally {
        await client.close();
      }
      expect((await wired.clients.admin.verifyAudit({})).firstDefect).toBeUndefined();
    },
  );

  it.each(Array.from({ length: STEPS }, (_, i) => i + 1))(
    'message %i of an import does not arrive, and repeating the import completes it',
    async (n) => {
      const secrets = Array.from({ length: 5 }, mintSecret);
      const name = `imported ${n}`;
      const keys = secrets.map((secret) => {
        const fields = { name, ownerId: 'o', keyType: KeyType.SERVICE, scopes: ['a:b'] };
        return create(ImportedKeySchema, { ...fields, keyHash: hashSecret(secret) });
      });
      wired.wire.cutAtMessage(n);
      const mending = until(async () => wired.wire.passed >= n).finally(() => wired.wire.mend());
      await answered(wired.clients.admin.importKeys({ keys }));
      wired.wire.mend();
      await mending.catch(() => {});
      await until(works);
      const { results } = await wired.clients.admin.importKeys({ keys });
      expect(new Set(results.map(({ id }) => id)).size).toBe(5);
      for (const secret of secrets) expect(await decisionOf(wired.clients, secret)).toBe('VALID');
      const client = await new MongoClient(wired.database.url).connect();
      try {
        const stored = await client
          .db()
          .collection<{ _id: string; outbox: { id: string }[] }>('api_keys')
          .find({ name })
          .toArray();
        expect(stored.map(({ _id }) => _id).sort()).toEqual(results.map(({ id }) => id).sort());
        for (const key of stored) {
          const method = 'apikey.v1.ApiKeyAdmin/ImportKeys';
          const inLog = await client
            .db()
            .collection('api_key_audit_log')
            .countDocuments({ key_id: key._id, method });
          expect(inLog).toBeLessThanOrEqual(1);
          expect(inLog + key.outbox.length).toBeGreaterThanOrEqual(1);
        }
      } finally {
        await client.close();
      }
      expect((await wired.clients.admin.verifyAudit({})).firstDefect).toBeUndefined();
    },
  );

  it('answering each request a second late, decisions still meet the deadline and never use old data', async () => {
    const made = await makeKey(wired.clients);
    expect(await decisionOf(wired.clients, made.secret)).toBe('VALID');
    wired.wire.slow(1_000);
    // A poll takes longer than the lease: every call reads.
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    const begun = Date.now();
    const answers = await Promise.allSettled(
      Array.from({ length: 20 }, () => decide(wired.clients, made.secret)),
    );
    expect(Date.now() - begun).toBeLessThan(HANGS_MS);
    for (const answer of answers)
      if (answer.status === 'fulfilled') expect(answer.value.cacheAge?.seconds ?? 0n).toBe(0n);
    await answered(wired.clients.admin.revokeKey({ id: made.id, reason: 1 }));
    wired.wire.mend();
    await until(works);
    expect(await decisionOf(wired.clients, made.secret)).toBe('REVOKED');
  });
});

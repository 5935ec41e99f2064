// If this fails, the MongoDB store loses keys, events or counts, or two processes disagree.
import { randomBytes } from 'node:crypto';
import { Collection, MongoClient } from 'mongodb';
import { afterAll, expect, inject, it, vi } from 'vitest';
import { Chain } from '../../src/audit/chain.ts';
import { EventFactory } from '../../src/audit/event.ts';
import { eventText } from '../../src/audit/fields.ts';
import { HOUR_MS, isUse } from '../../src/audit/usage-counter.ts';
import { Lease } from '../../src/store/lease.ts';
import { MongoAuditLog } from '../../src/store/mongo/audit-log.ts';
import { MongoDatabase } from '../../src/store/mongo/database.ts';
import { FreshReads } from '../../src/store/mongo/fresh-reads.ts';
import { MongoKeyStore } from '../../src/store/mongo/key-store.ts';
import { MongoLockout } from '../../src/store/mongo/lockout.ts';
import { migrate } from '../../src/store/mongo/migrations.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import { Registry } from '../../src/store/mongo/registry.ts';
import { type AuditDoc, type MetaDoc, toRecord, type UsageDoc } from '../../src/store/mongo/rows.ts';
import { MongoSharing } from '../../src/store/mongo/sharing.ts';
import { MongoUsageLog } from '../../src/store/mongo/usage.ts';
import { TestClock } from '../support/clock.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { allPages, entryWith, keyWith } from '../support/keys.ts';
import { requires } from '../support/requires.ts';
import { auditContract } from './contract/audit.ts';
import { chainContract } from './contract/chain.ts';
import { type Adapter, LEASE, LOCKOUT } from './contract/harness.ts';
import { keyStoreContract } from './contract/keys.ts';
import { limitsContract } from './contract/limits.ts';
import { noticesContract } from './contract/notices.ts';
import { proofContract } from './contract/proof.ts';
import { remoteKeysContract } from './contract/remote-keys.ts';
import { tamperingContract } from './contract/tampering.ts';
import { usageContract } from './contract/usage.ts';
import { mongoLedger } from './tampering/mongo-ledger.ts';

const uri = inject('mongoUri');
const names: string[] = [];
const adapter: Adapter = {
  name: 'mongo',
  freshUrl: () => {
    const name = `apikeyd_test_${randomBytes(6).toString('hex')}`;
    names.push(name);
    const url = new URL(uri);
    url.pathname = `/${name}`;
    return url.toString();
  },
  open: (url, clock, chainKey) =>
    openMongoStore({ url, clock, lockout: LOCKOUT, lease: LEASE, chainKey, warn: () => {} }),
  tamper: async (url, how, { id, processId, sequence }) => {
    const client = await new MongoClient(url).connect();
    const log = client
      .db()
      .collection<{ _id: string; process_id: string; sequence: number }>('api_key_audit_log');
    const next = { process_id: processId, sequence: sequence + 1 };
    const rest = { process_id: processId, sequence: { $gte: sequence } };
    if (how === 'changed') await log.updateOne({ _id: id }, { $set: { outcome: 'DECISION_REVOKED' } });
    else if (how === 'removed') await log.deleteOne({ _id: id });
    else if (how === 'truncated') await log.deleteMany(rest);
    else if (how === 'headless')
      await client
        .db()
        .collection<{ _id: string }>('api_key_meta')
        .deleteOne({ _id: `head:${processId}` });
    else if (how === 'swapped') {
      const [one, two] = [await log.findOne({ _id: id }), await log.findOne(next)];
      if (one === null || two === null) throw new Error('no rows');
      const { _id, sequence: _s, process_id: _p, ...of } = { hash: '', ...two };
      const { _id: _i, sequence: _t, process_id: _q, ...ofOne } = { hash: '', ...one };
      await log.updateOne({ _id: id }, { $set: { ...of, hash: ofOne.hash } });
      await log.updateOne({ _id }, { $set: { ...ofOne, hash: of.hash } });
    } else {
      // Its place is unique here, so what is put in stands after the end.
      const last = await log.find({ process_id: processId }).sort({ sequence: -1 }).next();
      if (last === null) throw new Error('no row');
      const record = toRecord(last as never);
      const forged = { ...record, id: 'forged', sequence: record.sequence + 1 };
      const hash = new Chain(undefined).next(record.hash, forged, forged.time, eventText(forged));
      await log.insertOne({ ...last, _id: 'forged', sequence: last.sequence + 1, hash } as never);
    }
    await client.close();
  },
  forgetUsage: async (url, what) => {
    const client = await new MongoClient(url).connect();
    const [meta, usage] = [
      client.db().collection<MetaDoc>('api_key_meta'),
      client.db().collection<UsageDoc>('api_key_usage'),
    ];
    if (what === 'ALL') {
      await usage.deleteMany({});
      await meta.deleteMany({ _id: { $regex: '^usage:' } });
    } else {
      const [last = 0, before = 0] = (await usage.distinct('reaches')).sort((a, b) => b - a);
      await meta.updateOne({ counted: last }, { $set: { counted: before } });
      const log = client.db().collection<AuditDoc>('api_key_audit_log');
      const events = (await log.find({ sequence: { $lte: before } }).toArray()).map(toRecord).filter(isUse);
      for (const row of (await usage.find({ reaches: last }).toArray()).slice(1)) {
        const hour = row.time.getTime();
        const count = events.filter(
          ({ keyId, time, outcome }) =>
            (row.key_id === '' || row.key_id === keyId) &&
            Math.floor(time / HOUR_MS) * HOUR_MS === hour &&
            outcome === row.outcome,
        ).length;
        if (count === 0) await usage.deleteOne({ _id: row._id });
        else await usage.updateOne({ _id: row._id }, { $set: { count, reaches: before } });
      }
    }
    await client.close();
  },
  severalProcesses: true,
  ownClock: true,
};

requires('mongodb').describe('mongo', () => {
  afterAll(async () => {
    const client = await new MongoClient(uri).connect();
    for (const name of names) await client.db(name).dropDatabase();
    await client.close();
  });

  keyStoreContract(adapter);
  auditContract(adapter);
  limitsContract(adapter);
  noticesContract(adapter);
  remoteKeysContract(adapter);
  chainContract(adapter);
  usageContract(adapter);
  tamperingContract(adapter, mongoLedger, 'mongo');
  proofContract(adapter, mongoLedger);

  it('lets several processes start on an empty database at once', async () => {
    const url = adapter.freshUrl();
    const stores = await Promise.all(Array.from({ length: 4 }, () => adapter.open(url, new TestClock())));
    const { key } = keyWith();
    await stores[0]?.keys.insert(key, entryWith());
    expect(await stores[3]?.keys.get(key.id)).toMatchObject({ id: key.id });
    await Promise.all(stores.map((store) => store.close()));
  });

  it('notes where a chain begins before its rows go', async () => {
    const store = await adapter.open(adapter.freshUrl(), new TestClock());
    const { chainLog, audit } = store;
    const { processId } = chainLog;
    for (let i = 0; i < 3; i++) await audit.record(entryWith());
    const hash = (await chainLog.hashesAt(processId, [2])).get(2) ?? '';
    const deleting = vi.spyOn(Collection.prototype, 'deleteMany').mockRejectedValueOnce(new Error('killed'));
    await expect(chainLog.cut({ processId, sequence: 2, hash, events: 2 }, 1_000)).rejects.toThrow();
    expect(deleting).toHaveBeenCalledTimes(1);
    deleting.mockRestore();
    const note = (await chainLog.heads()).find((head) => head.processId === processId);
    expect(note?.cut).toMatchObject({ sequence: 2, hash });
    await store.close();
  });

  it('takes a new client when the driver has lost the server for good', async () => {
    const database = await MongoDatabase.connect(adapter.freshUrl());
    await migrate(database, new Chain(undefined));
    // From here on it is compared with the store's own, and a schema may take long to make.
    const clock = new TestClock(Date.now());
    const warnings: string[] = [];
    const warn = (text: string) => void warnings.push(text);
    const lease = new Lease(clock, 1_000);
    const registry = new Registry(database, 'p', 1_000, true, clock);
    const reads = new FreshReads(database, lease);
    const audit = new MongoAuditLog(database, new EventFactory('p'), new Chain(undefined), clock, warn);
    const keys = new MongoKeyStore({ database, audit, registry, reads, clock });
    const lockout = await MongoLockout.open(database, LOCKOUT, lease, clock);
    const usage = new MongoUsageLog(database, 'p', registry);
    const sharing = new MongoSharing({
      database,
      registry,
      keys,
      reads,
      audit,
      usage,
      lockout,
      lease,
      clock,
      pollMs: 20,
      guardSecret: 's',
      warn,
    });
    await sharing.start(() => {});
    await sharing.healthy();
    // A closed client stands for one whose monitor hangs: no call on it ever finds the server again.
    await database.client.close();
    await expect(keys.get('uid-apikey-0000000000000000')).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
    await vi.waitFor(() => expect(warnings).toHaveLength(1), HANGS_MS);
    clock.advance(5_001);
    await expect(sharing.healthy()).rejects.toThrow();
    await vi.waitFor(() => sharing.healthy(), HANGS_MS);
    expect(await keys.get('uid-apikey-0000000000000000')).toBeUndefined();
    expect(await lockout.clear('192.0.2.1')).toBe(false);
    await sharing.stop();
    await database.close();
  });

  it('finishes a change that a crash left between the write and the log, once', async () => {
    const url = adapter.freshUrl();
    const clock = new TestClock(Date.now());
    const store = await adapter.open(url, clock);
    const client = await new MongoClient(url).connect();
    try {
      const { key } = keyWith();
      await store.keys.insert(key, entryWith({ keyId: key.id }));
      // What a process leaves that is killed right after its write: the event still rides in the document.
      const left = {
        id: 'deadbeefdeadbeef-1',
        served_by: 'deadbeefdeadbeef',
        time: new Date(clock.now()),
        method: 'm',
        outcome: 'OK',
        key_id: key.id,
        cost: 0,
        latency_micros: 1,
        change: 'REVOKED',
      };
      await client
        .db()
        .collection('api_keys')
        .updateOne({ _id: key.id as never }, { $push: { outbox: left } as never });
      await store.sweep();
      expect(await store.audit.count()).toBe(1);
      clock.advance(16_000);
      await Promise.all([store.sweep(), store.sweep()]);
      await store.sweep();
      const events = await allPages((page) => store.audit.list({ keyId: key.id }, page));
      expect(events.map(({ id, servedBy }) => ({ id, servedBy }))).toContainEqual({
        id: left.id,
        servedBy: left.served_by,
      });
      expect(events).toHaveLength(2);
      expect(await store.keys.revision()).toBeGreaterThanOrEqual(2);
      const doc = await client
        .db()
        .collection('api_keys')
        .findOne({ _id: key.id as never });
      expect(doc?.outbox).toEqual([]);
    } finally {
      await client.close();
      await store.close();
    }
  });

  it('finishes a change of a record of another system that a crash left, once', async () => {
    const url = adapter.freshUrl();
    const clock = new TestClock(Date.now());
    const store = await adapter.open(url, clock);
    const client = await new MongoClient(url).connect();
    try {
      const left = { id: 'deadbeefdeadbeef-1', served_by: 'deadbeefdeadbeef', time: new Date(clock.now()) };
      const event = { ...left, method: 'm', outcome: 'OK', reason: 'created 7', cost: 0, latency_micros: 1 };
      const tokens = client.db().collection<{ _id: string }>('gitea_tokens');
      await tokens.insertOne({ _id: '7', outbox: [event] } as never);
      clock.advance(16_000);
      await Promise.all([store.sweep(), store.sweep()]);
      const { items } = await store.audit.list({}, { size: 9, after: undefined });
      expect(items.map(({ reason }) => reason)).toEqual(['created 7']);
      expect(await tokens.findOne({ _id: '7' })).toEqual({ _id: '7', outbox: [] });
    } finally {
      await client.close();
      await store.close();
    }
  });

  it('serves every query from an index', async () => {
    const url = adapter.freshUrl();
    const store = await adapter.open(url, new TestClock());
    const client = await new MongoClient(url).connect();
    try {
      for (let i = 0; i < 30; i++) {
        const { key } = keyWith({ requestId: `r${i}` });
        await store.keys.insert(key, entryWith({ keyId: key.id, clientIp: '10.0.0.1' }));
      }
      const indexes = async (collection: string) =>
        (await client.db().collection(collection).indexes()).map((index) => ({
          key: index.key,
          unique: index.unique === true,
        }));
      expect(await indexes('api_keys')).toEqual(
        expect.arrayContaining([
          { key: { 'secrets.hash': 1 }, unique: true },
          { key: { create_time: 1, _id: 1 }, unique: false },
          { key: { owner_id: 1, create_time: 1, _id: 1 }, unique: false },
          { key: { request_id: 1 }, unique: true },
        ]),
      );
      expect(await indexes('api_key_limits')).toContainEqual({ key: { key: 1 }, unique: true });
      const plans: [string, object][] = [
        ['api_keys', { 'secrets.hash': 'x' }],
        ['api_keys', { request_id: 'r1' }],
        ['api_keys', { 'outbox.id': { $gt: '' } }],
        ['api_keys', { owner_id: 'owner' }],
        ['api_key_audit_log', { key_id: 'x' }],
        ['api_key_audit_log', { client_ip: '10.0.0.1' }],
        ['api_key_limits', { key: 'lockout:1' }],
        ['api_keys', { 'rotation.expire_time': { $lte: new Date() } }],
        ['api_keys', { rotation_due_time: { $lte: new Date() } }],
        ['api_keys', { expire_time: { $lte: new Date() } }],
        ['api_key_rotations', { start_time: { $exists: true } }],
        ['api_key_rotations', { key_id: 'x' }],
        ['api_key_anomalies', { open_for: 'x' }],
        ['api_key_anomalies', { key_id: 'x' }],
        ['api_key_alerts', { time: { $gte: new Date(0) } }],
        ['api_key_alerts', { pending: true }],
        ['gitea_tokens', { hash: 'x' }],
        ['n8n_api_keys', { user: 'x' }],
        ['gitea_tokens', { 'outbox.id': { $gt: '' } }],
      ];
      for (const [collection, query] of plans) {
        const plan = JSON.stringify(
          await client
            .db()
            .collection(collection)
            .find(query)
            .hint(await hintFor(client, collection, query))
            .explain(),
        );
        expect(plan, `${collection} ${JSON.stringify(query)}`).toMatch(/IXSCAN|Index Scan|indexName|EXPRESS/);
      }
    } finally {
      await client.close();
      await store.close();
    }
  });
});

/** A small collection may be scanned for good reason: the hint asks whether the index can serve at all. */
async function hintFor(client: MongoClient, collection: string, query: object): Promise<string> {
  const [field] = Object.keys(query);
  const index = (await client.db().collection(collection).indexes()).find(
    ({ key }) => Object.keys(key)[0] === field,
  );
  if (index?.name === undefined) throw new Error(`no index begins with ${field}`);
  return index.name;
}

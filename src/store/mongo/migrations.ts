import { randomBytes } from 'node:crypto';
import type { IndexDescription } from 'mongodb';
import type { Chain } from '../../audit/chain.ts';
import { RETIRED_MS } from '../../keys/rotation.ts';
import { signOlderNotes } from './chain-notes.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf } from './errors.ts';

const REMOTE_KEYS = [
  { key: { hash: 1 }, name: 'hash' },
  { key: { user: 1, create_time: -1, _id: -1 }, name: 'by_user' },
  { key: { user_id: 1, create_time: -1, _id: -1 }, name: 'by_user_id', sparse: true },
  { key: { 'outbox.id': 1 }, name: 'outbox', sparse: true },
] as const;

/** Each index serves one query (docs/storage.md). */
export const INDEXES = {
  keys: [
    { key: { 'secrets.hash': 1 }, name: 'secret_hash', unique: true },
    { key: { create_time: 1, _id: 1 }, name: 'by_create' },
    { key: { owner_id: 1, create_time: 1, _id: 1 }, name: 'by_owner' },
    { key: { name: 1 }, name: 'by_name' },
    { key: { request_id: 1 }, name: 'request_id', unique: true, sparse: true },
    { key: { 'outbox.id': 1 }, name: 'outbox' },
    { key: { 'rotation.expire_time': 1, _id: 1 }, name: 'by_rotation_expire', sparse: true },
    { key: { rotation_due_time: 1, _id: 1 }, name: 'by_rotation_due', sparse: true },
    { key: { expire_time: 1, _id: 1 }, name: 'by_expire', sparse: true },
  ],
  retired: [{ key: { retire_time: 1 }, name: 'retire_time', expireAfterSeconds: RETIRED_MS / 1000 }],
  rotations: [
    { key: { start_time: -1, _id: -1 }, name: 'by_start' },
    { key: { key_id: 1, start_time: -1, _id: -1 }, name: 'by_key' },
  ],
  anomalies: [
    { key: { open_for: 1 }, name: 'open_for', unique: true, sparse: true },
    { key: { first_time: -1, _id: -1 }, name: 'by_time' },
    { key: { key_id: 1, first_time: -1, _id: -1 }, name: 'by_key' },
    { key: { 'outbox.id': 1 }, name: 'outbox', sparse: true },
  ],
  alerts: [
    { key: { time: 1, _id: 1 }, name: 'by_time' },
    { key: { pending: 1, time: 1 }, name: 'pending', sparse: true },
  ],
  usage: [
    { key: { key_id: 1, time: 1 }, name: 'by_key' },
    { key: { time: 1 }, name: 'by_time' },
  ],
  giteaTokens: REMOTE_KEYS,
  n8nApiKeys: REMOTE_KEYS,
  audit: [
    { key: { process_id: 1, sequence: 1 }, name: 'process_sequence', unique: true },
    { key: { time: -1, sequence: -1, _id: -1 }, name: 'by_time' },
    { key: { key_id: 1, time: -1, sequence: -1, _id: -1 }, name: 'by_key' },
    { key: { client_ip: 1, time: -1, sequence: -1, _id: -1 }, name: 'by_ip' },
  ],
  limits: [
    { key: { key: 1 }, name: 'key', unique: true },
    { key: { expire: 1 }, name: 'expire', expireAfterSeconds: 0 },
  ],
} as const satisfies Partial<Record<keyof MongoDatabase, readonly IndexDescription[]>>;

/**
 * Numbered and forward only. Every step may run twice and in several processes at once: creating an existing index does
 * nothing, and the version is only raised.
 */
const MIGRATIONS: readonly ((db: MongoDatabase, chain: Chain) => Promise<unknown>)[] = [
  async (db) => {
    for (const [collection, indexes] of Object.entries(INDEXES)) {
      // Must end before the first call: the limiter admits too many while its unique index is missing.
      await db[collection as keyof typeof INDEXES].createIndexes([...indexes]);
    }
    const { meta } = db;
    await insertOnce(() => meta.insertOne({ _id: 'revision', revision: 0, recent: [] }));
    await insertOnce(() => meta.insertOne({ _id: 'sweeper', holder: '', until: new Date(0) }));
  },
  indexRemoteKeys,
  async ({ keys, usage }) => {
    await keys.createIndexes([...INDEXES.keys]);
    await usage.createIndexes([...INDEXES.usage]);
  },
  // Again, as the step before did not create the index by_user_id at first.
  indexRemoteKeys,
  signOlderNotes,
  async ({ meta }) => {
    const epoch = randomBytes(8).toString('hex');
    await meta.updateOne({ _id: 'revision', epoch: { $exists: false } }, { $set: { epoch } });
  },
];

async function indexRemoteKeys({ giteaTokens, n8nApiKeys }: MongoDatabase): Promise<void> {
  for (const collection of [giteaTokens, n8nApiKeys]) await collection.createIndexes([...REMOTE_KEYS]);
}

/** Migrates the schema to this program's version. */
export async function migrate(db: MongoDatabase, chain: Chain): Promise<void> {
  await insertOnce(() => db.meta.insertOne({ _id: 'schema', version: 0 }));
  const version = (await db.meta.findOne({ _id: 'schema' }))?.version ?? 0;
  for (const [i, step] of MIGRATIONS.entries()) {
    if (i < version) continue;
    await step(db, chain);
    await db.meta.updateOne({ _id: 'schema' }, { $max: { version: i + 1 } });
  }
}

async function insertOnce(insert: () => Promise<unknown>): Promise<void> {
  try {
    await insert();
  } catch (error) {
    if (failureOf(error) !== 'DUPLICATE') throw error;
  }
}

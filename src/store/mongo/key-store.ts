import type { Filter, FindOptions, UpdateFilter } from 'mongodb';
import { ApiError } from '../../keys/errors.ts';
import type { Key } from '../../keys/key.ts';
import { KEY_TYPES } from '../../keys/key.ts';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type { Clock } from '../../keys/ports/clock.ts';
import type {
  DueTime,
  Found,
  Inserted,
  KeyChange,
  KeyCounts,
  KeyFilter,
  KeyStore,
  SecretOwner,
} from '../../keys/ports/key-store.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import type { RotationEffects } from '../../keys/rotation.ts';
import { revisionNotReached } from '../errors.ts';
import { LAST_CHARACTER, pagedBy } from '../paging.ts';
import type { MongoAuditLog } from './audit-log.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, toApiError } from './errors.ts';
import type { FreshReads } from './fresh-reads.ts';
import { KeyChanges } from './key-changes.ts';
import type { Registry } from './registry.ts';
import { Revisions } from './revisions.ts';
import { afterTime, type KeyDoc, keyFields, toKey, toWaitingDoc, type WaitingDoc } from './rows.ts';

const KEPT_OPS = 16;
/** The most events in the outbox of one key document; revoking and expiring are exempt. */
const MAX_OUTBOX = 32;

const DUE_FIELDS: Readonly<Record<DueTime, string>> = {
  ROTATION_GRACE: 'rotation.expire_time',
  ROTATION: 'rotation_due_time',
  EXPIRY: 'expire_time',
};

export interface MongoKeyStoreParts {
  readonly database: MongoDatabase;
  readonly audit: MongoAuditLog;
  readonly registry: Registry;
  readonly reads: FreshReads;
  readonly clock: Clock;
}

/**
 * Keys on MongoDB. A change is one guarded single-document write that carries its event in `outbox`; then the
 * revision is published and the event moved to the log; only then is the call answered (docs/design/outbox.md).
 */
export class MongoKeyStore implements KeyStore {
  readonly #database: MongoDatabase;
  readonly #audit: MongoAuditLog;
  readonly #registry: Registry;
  readonly #reads: FreshReads;
  readonly #clock: Clock;
  readonly #revisions: Revisions;
  readonly #changes: KeyChanges;

  constructor({ database, audit, registry, reads, clock }: MongoKeyStoreParts) {
    this.#reads = reads;
    this.#database = database;
    this.#audit = audit;
    this.#registry = registry;
    this.#clock = clock;
    this.#revisions = new Revisions(database);
    this.#changes = new KeyChanges(database, audit, this.#revisions);
  }

  async findByHash(secretHash: string, minRevision = 0): Promise<Found> {
    if (minRevision > this.#revisions.seen) {
      const revision = await this.revision();
      if (revision < minRevision) throw revisionNotReached(minRevision, revision);
    }
    const revision = this.#revisions.seen;
    const doc = await this.#one((options) =>
      this.#database.keys.findOne({ 'secrets.hash': secretHash }, options),
    );
    if (doc !== null) return { key: toKey(doc), revision, ageMs: 0 };
    const former = await this.#findRetired(secretHash);
    return { key: former, revision, ageMs: 0, ...(former === undefined ? {} : { retired: true }) };
  }

  peekCached(): undefined {
    return undefined;
  }

  isCurrent(): boolean {
    return true;
  }

  async get(id: string): Promise<Key | undefined> {
    const doc = await guarded((limits) => this.#database.keys.findOne({ _id: id }, limits));
    return doc === null ? undefined : toKey(doc);
  }

  list(filter: KeyFilter, page: Page): Promise<Paged<Key>> {
    const where: Filter<KeyDoc>[] = [];
    if (filter.ownerId !== undefined) where.push({ owner_id: filter.ownerId });
    if (filter.type !== undefined) where.push({ key_type: filter.type });
    if (filter.status !== undefined) where.push(withStatus(filter.status));
    if (filter.prefix !== undefined) {
      const range = { $gte: filter.prefix, $lt: filter.prefix + LAST_CHARACTER };
      where.push({ $or: [{ _id: range }, { name: range }] });
    }
    if (page.after !== undefined) where.push(afterTime('create_time', page.after));
    return guarded(async (limits) => {
      const found = this.#database.keys.find(where.length === 0 ? {} : { $and: where }, limits);
      const docs = await found
        .sort({ create_time: 1, _id: 1 })
        .limit(page.size + 1)
        .toArray();
      return pagedBy(docs.map(toKey), page.size, (key) => [key.createTime, key.id]);
    });
  }

  due(kind: DueTime, until: number, page: Page): Promise<Paged<Key>> {
    return guarded(async (limits) => {
      const field = DUE_FIELDS[kind];
      const where: Filter<KeyDoc>[] = [
        { [field]: { $lte: new Date(until) }, revoke_time: { $exists: false } },
      ];
      if (page.after !== undefined) where.push(afterTime(field, page.after));
      const docs = await this.#database.keys
        .find({ $and: where }, limits)
        .sort({ [field]: 1, _id: 1 })
        .limit(page.size + 1)
        .toArray();
      const paged = pagedBy(docs, page.size, (doc) => [dueTime(doc, kind), doc._id]);
      return { items: paged.items.map(toKey), next: paged.next };
    });
  }

  async insert(key: Key, entry: AuditEntry): Promise<Inserted> {
    const event = this.#audit.events.create(entry);
    const waiting = toWaitingDoc(event, 'CREATED');
    try {
      await inTime((limits) => this.#database.keys.insertOne(documentWithEvent(key, waiting), { ...limits }));
    } catch (error) {
      const failure = failureOf(error);
      if (failure === 'OTHER') throw toApiError(error);
      if (!(await this.#changes.wasApplied(key.id, event.id))) {
        return failure === 'DUPLICATE' ? this.#collision(key) : fail(error);
      }
    }
    return { outcome: 'INSERTED', key: await this.#changes.finish(key, waiting) };
  }

  /** One write for all keys; where its response leaves the outcome open, the documents are read. */
  async insertMany(items: Parameters<KeyStore['insertMany']>[0]): Promise<readonly Inserted[]> {
    if (items.length === 0) return [];
    const waiting = items.map(({ entry }) => toWaitingDoc(this.#audit.events.create(entry), 'CREATED'));
    const docs = items.map(({ key }, i) => documentWithEvent(key, waiting[i] as WaitingDoc));
    let failure: unknown;
    try {
      await inTime((limits) => this.#database.keys.insertMany(docs, { ordered: false, ...limits }));
    } catch (error) {
      if (failureOf(error) === 'OTHER') throw toApiError(error);
      failure = error;
    }
    const there = failure === undefined ? undefined : await this.#changes.whichTookPlace(docs);
    const made = items.flatMap(({ key }, i) =>
      there === undefined || there.has(key.id) ? [{ key, waiting: waiting[i] as WaitingDoc }] : [],
    );
    const finished = await this.#changes.finishMany(made);
    // The write may still arrive: the caller's next attempt finds the keys.
    if (finished.size < items.length && failureOf(failure) === 'AWAY') fail(failure);
    return items.map(({ key }) => {
      const stored = finished.get(key.id);
      return stored === undefined ? { outcome: 'COLLISION' } : { outcome: 'INSERTED', key: stored };
    });
  }

  async holdersOf(secretHashes: readonly string[]): Promise<ReadonlyMap<string, SecretOwner>> {
    const hashes = [...secretHashes];
    const retired = await guarded((limits) =>
      this.#database.retired.find({ _id: { $in: hashes } }, limits).toArray(),
    );
    const holders = new Map(
      retired.map((row): [string, SecretOwner] => [row._id, { keyId: row.key_id, retired: true }]),
    );
    const projection = { 'secrets.hash': 1 };
    const docs = await guarded((limits) =>
      this.#database.keys.find({ 'secrets.hash': { $in: hashes } }, { projection, ...limits }).toArray(),
    );
    for (const doc of docs)
      for (const { hash } of doc.secrets) holders.set(hash, { keyId: doc._id, retired: false });
    return holders;
  }

  async replace(
    key: Key,
    expectedEtag: string,
    change: KeyChange,
    entry: AuditEntry,
    effects?: RotationEffects,
  ): Promise<Key | undefined> {
    const event = this.#audit.events.create(entry);
    const waiting = toWaitingDoc(event, change, effects);
    // First the retired hashes, then the key: so no hash is ever unknown. Until then the secret is found with its key.
    if (effects !== undefined && effects.retired.length > 0) await this.#retire(key.id, effects.retired);
    const exempt = change === 'REVOKED' || change === 'EXPIRED';
    const room: Filter<KeyDoc> = exempt ? {} : { [`outbox.${MAX_OUTBOX - 1}`]: { $exists: false } };
    const { set, unset } = keyFields(key);
    const update: UpdateFilter<KeyDoc> = {
      $set: set,
      ...(unset.length === 0 ? {} : { $unset: Object.fromEntries(unset.map((name) => [name, ''])) }),
      $push: { outbox: waiting, ops: { $each: [event.id], $slice: -KEPT_OPS } },
    };
    try {
      const filter = { _id: key.id, etag: expectedEtag, ...room };
      const { matchedCount } = await inTime((limits) =>
        this.#database.keys.updateOne(filter, update, { ...limits }),
      );
      if (matchedCount === 0) return await this.#missed(key.id, expectedEtag);
    } catch (error) {
      if (failureOf(error) === 'OTHER') throw toApiError(error);
      // Unknown outcome: the document shows whether the write was applied. If not, its late arrival fails on the etag.
      if (!(await this.#changes.wasApplied(key.id, event.id))) fail(error);
    }
    const stored = await this.#changes.finish(key, waiting);
    // Other processes may use records from before the publication until their leases end.
    if (effects?.narrows ?? true) await this.#registry.waitForOthers(key.everLocal);
    return stored;
  }

  async forgetRequestId(keyId: string, requestId: string): Promise<void> {
    const filter = { _id: keyId, request_id: requestId };
    const update = { $unset: { request_id: '' as const } };
    await guarded((limits) => this.#database.keys.updateOne(filter, update, { ...limits }));
  }

  async writeLastUses(uses: ReadonlyMap<string, number>): Promise<void> {
    const writes = [...uses].map(([id, time]) => ({
      updateOne: { filter: { _id: id }, update: { $max: { last_use_time: new Date(time) } } },
    }));
    await guarded((limits) => this.#database.keys.bulkWrite(writes, { ordered: false, ...limits }));
  }

  count(now: number): Promise<KeyCounts> {
    return guarded(async (limits) => {
      const of = (filter: Filter<KeyDoc>) => this.#database.keys.countDocuments(filter, { ...limits });
      const all = await of({});
      const REVOKED = await of({ revoke_time: { $exists: true } });
      const DISABLED = await of({ revoke_time: { $exists: false }, disabled: true });
      const ACTIVE = await of(activeAt(now));
      const types = await Promise.all(KEY_TYPES.map(async (type) => [type, await of({ key_type: type })]));
      // The counts are not from one moment: a change in between must not make this one negative.
      const EXPIRED = Math.max(0, all - REVOKED - DISABLED - ACTIVE);
      return { byStatus: { ACTIVE, DISABLED, EXPIRED, REVOKED }, byType: Object.fromEntries(types) };
    });
  }

  /** For the poll, which sets its own time limits. */
  readChanges(after: number, limits: FindOptions) {
    return this.#revisions.changesSince(after, limits);
  }

  changesSince(revision: number) {
    return guarded((limits) => this.#revisions.changesSince(revision, limits));
  }

  revision(): Promise<number> {
    return this.#revisions.read();
  }

  /** Publishes the changes and moves the events that crashed processes left in key documents. */
  finishAbandoned(): Promise<void> {
    return this.#changes.finishAbandoned(this.#clock.now());
  }

  async #retire(keyId: string, hashes: readonly string[]): Promise<void> {
    const writes = hashes.map((hash) => ({
      updateOne: {
        filter: { _id: hash },
        update: { $set: { key_id: keyId, retire_time: new Date(this.#clock.now()) } },
        upsert: true,
      },
    }));
    await guarded((limits) => this.#database.retired.bulkWrite(writes, { ordered: false, ...limits }));
  }

  async #findRetired(secretHash: string): Promise<Key | undefined> {
    const row = await this.#one((options) => this.#database.retired.findOne({ _id: secretHash }, options));
    if (row === null) return undefined;
    const doc = await this.#one((options) => this.#database.keys.findOne({ _id: row.key_id }, options));
    return doc === null ? undefined : toKey(doc);
  }

  /** Runs a read that decisions depend on. */
  async #one<T>(read: (options: FindOptions) => Promise<T>): Promise<T> {
    try {
      return await this.#reads.one(read);
    } catch (error) {
      throw toApiError(error);
    }
  }

  async #collision(key: Key): Promise<Inserted> {
    if (key.requestId === undefined) return { outcome: 'COLLISION' };
    const request_id = key.requestId;
    const holder = await guarded((limits) => this.#database.keys.findOne({ request_id }, limits));
    return holder === null ? { outcome: 'COLLISION' } : { outcome: 'REQUEST_ID_USED', key: toKey(holder) };
  }

  /** Why no document matched: another version (undefined), or an outbox that is full as the log is unavailable. */
  async #missed(id: string, etag: string): Promise<undefined> {
    const same = await guarded((limits) =>
      this.#database.keys.findOne({ _id: id, etag }, { projection: { _id: 1 }, ...limits }),
    );
    if (same === null) return undefined;
    const text = 'too many changes of this key are waiting for the audit log';
    throw new ApiError('AUDIT_OVERLOADED', text, { retryAfterMs: 1000 });
  }
}

/** A new document with the event of its creation. */
function documentWithEvent(key: Key, waiting: WaitingDoc): KeyDoc {
  return { _id: key.id, ...keyFields(key).set, revision: 0, outbox: [waiting], ops: [waiting.id] };
}

function fail(error: unknown): never {
  throw toApiError(error);
}

function dueTime(doc: KeyDoc, kind: DueTime): number {
  const times = {
    ROTATION_GRACE: doc.rotation?.expire_time,
    ROTATION: doc.rotation_due_time,
    EXPIRY: doc.expire_time,
  };
  return times[kind]?.getTime() ?? 0;
}

function activeAt(now: number): Filter<KeyDoc> {
  return {
    revoke_time: { $exists: false },
    disabled: false,
    expired: false,
    $or: [{ expire_time: { $exists: false } }, { expire_time: { $gt: new Date(now) } }],
  };
}

function withStatus({ is, at }: NonNullable<KeyFilter['status']>): Filter<KeyDoc> {
  if (is === 'ACTIVE') return activeAt(at);
  if (is === 'REVOKED') return { revoke_time: { $exists: true } };
  const disabled = { revoke_time: { $exists: false }, disabled: is === 'DISABLED' };
  return is === 'DISABLED'
    ? disabled
    : { ...disabled, $or: [{ expired: true }, { expire_time: { $lte: new Date(at) } }] };
}

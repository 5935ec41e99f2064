import type { Filter, FindOptions, OptionalUnlessRequiredId, UpdateFilter } from 'mongodb';
import { ApiError } from '../../keys/errors.ts';
import type { Key } from '../../keys/key.ts';
import { KEY_TYPES } from '../../keys/key.ts';
import type {
  AuditEntry,
  Clock,
  DueTime,
  Found,
  Inserted,
  KeyChange,
  KeyCounts,
  KeyFilter,
  KeyStore,
  Page,
  Paged,
} from '../../keys/ports.ts';
import type { RotationEffects } from '../../keys/rotation.ts';
import { revisionNotReached } from '../errors.ts';
import { pagedBy } from '../paging.ts';
import type { MongoAuditLog } from './audit-log.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, toApiError } from './errors.ts';
import type { FreshReads } from './fresh-reads.ts';
import type { Registry } from './registry.ts';
import {
  ABANDONED_MS,
  afterTime,
  type KeyDoc,
  keyFields,
  toEvent,
  toKey,
  toWaitingDoc,
  type WaitingDoc,
} from './rows.ts';
import { waitForOthers } from './sharing.ts';

const KEPT_CHANGES = 1_000;
const KEPT_OPS = 16;
/** Events that may wait in one key document; revoking and expiring are exempt. */
const MAX_OUTBOX = 32;
const SWEEP_KEYS = 100;

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
 * revision is published, the event moved to the log, and only then is the change answered (protocols.md A, H, I).
 */
export class MongoKeyStore implements KeyStore {
  readonly #database: MongoDatabase;
  readonly #audit: MongoAuditLog;
  readonly #registry: Registry;
  readonly #reads: FreshReads;
  readonly #clock: Clock;
  /** The newest revision this process has seen. */
  #seen = 0;

  constructor({ database, audit, registry, reads, clock }: MongoKeyStoreParts) {
    this.#reads = reads;
    this.#database = database;
    this.#audit = audit;
    this.#registry = registry;
    this.#clock = clock;
  }

  async findByHash(secretHash: string, minRevision = 0): Promise<Found> {
    if (minRevision > this.#seen) {
      const revision = await this.revision();
      if (revision < minRevision) throw revisionNotReached(minRevision, revision);
    }
    const revision = this.#seen;
    const doc = await this.#one((options) =>
      this.#database.keys.findOne({ 'secrets.hash': secretHash }, options),
    );
    if (doc !== null) return { key: toKey(doc), revision, ageMs: 0 };
    const former = await this.#findRetired(secretHash);
    return { key: former, revision, ageMs: 0, ...(former === undefined ? {} : { retired: true }) };
  }

  recall(): undefined {
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
    if (filter.activeAt !== undefined) where.push(activeAt(filter.activeAt));
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
      const doc = { ...documentOf(key), outbox: [waiting], ops: [event.id] };
      await inTime((limits) => this.#database.keys.insertOne(doc, { ...limits }));
    } catch (error) {
      const failure = failureOf(error);
      if (failure === 'OTHER') throw toApiError(error);
      if (!(await this.#tookPlace(key.id, event.id))) {
        return failure === 'DUPLICATE' ? this.#collision(key) : fail(error);
      }
    }
    return { outcome: 'INSERTED', key: await this.#finish(key, waiting) };
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
    // Before the key lets go of them, so that they are never unknown. A secret that still works is found with its key.
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
      // Unknown outcome: the document says whether it took place. If not, a late arrival fails on the etag.
      if (!(await this.#tookPlace(key.id, event.id))) fail(error);
    }
    const stored = await this.#finish(key, waiting);
    // What others have read before it was published they may use for as long as their leases last.
    if (effects?.narrows ?? true) await waitForOthers(this.#registry);
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
      // Counted one after the other, so what changed in between must not make a negative number.
      const EXPIRED = Math.max(0, all - REVOKED - DISABLED - ACTIVE);
      return { byStatus: { ACTIVE, DISABLED, EXPIRED, REVOKED }, byType: Object.fromEntries(types) };
    });
  }

  /** What was published after revision `after`: undefined when that is further back than what is remembered. */
  async readChanges(after: number, limits: FindOptions) {
    const doc = await this.#database.meta.findOne({ _id: 'revision' }, limits);
    const revision = this.#see(doc?.revision ?? 0);
    const recent = (doc?.recent ?? []).filter((change) => change.revision > after);
    const changes = recent.map((change) => ({
      revision: change.revision,
      keyId: change.key_id,
      change: change.change as KeyChange,
    }));
    return { revision, changes: after >= 0 && recent.length === revision - after ? changes : undefined };
  }

  changesSince(revision: number) {
    return guarded((limits) => this.readChanges(revision, limits));
  }

  async revision(): Promise<number> {
    const doc = await guarded((limits) =>
      this.#database.meta.findOne({ _id: 'revision' }, { projection: { revision: 1 }, ...limits }),
    );
    return this.#see(doc?.revision ?? 0);
  }

  /** Publishes and moves what crashed processes left in key documents. Answers how many events it moved. */
  async finishAbandoned(): Promise<number> {
    const before = new Date(this.#clock.now() - ABANDONED_MS);
    // The range on the id lets the index find just the keys whose outbox is not empty.
    const docs = await guarded((limits) =>
      this.#database.keys
        .find({ 'outbox.id': { $gt: '' } }, limits)
        .limit(SWEEP_KEYS)
        .toArray(),
    );
    let moved = 0;
    for (const doc of docs) {
      for (const left of doc.outbox.filter(({ time }) => time < before)) {
        await this.#finish(toKey(doc), left);
        moved++;
      }
    }
    return moved;
  }

  /** After the write: publish, move the event, take it out of the document. Each step may be done twice. */
  async #finish(key: Key, waiting: WaitingDoc): Promise<Key> {
    const revision = await this.#publish(key.id, waiting.change);
    await this.#remember(key.id, waiting);
    await this.#audit.append(toEvent(waiting));
    await guarded((limits) =>
      this.#database.keys.updateOne(
        { _id: key.id },
        { $pull: { outbox: { id: waiting.id } }, $max: { revision } },
        { ...limits },
      ),
    );
    return { ...key, revision };
  }

  /** The number and the key become visible together, in one update of one document. */
  async #publish(keyId: string, change: string): Promise<number> {
    const next = { $add: ['$revision', 1] };
    const entry = { revision: next, key_id: keyId, change };
    const pipeline = [
      {
        $set: {
          revision: next,
          recent: { $slice: [{ $concatArrays: ['$recent', [entry]] }, -KEPT_CHANGES] },
        },
      },
    ];
    const options = { returnDocument: 'after', projection: { revision: 1 } } as const;
    const doc = await guarded((limits) =>
      this.#database.meta.findOneAndUpdate({ _id: 'revision' }, pipeline, { ...options, ...limits }),
    );
    return this.#see(doc?.revision ?? 0);
  }

  #see(revision: number): number {
    this.#seen = Math.max(this.#seen, revision);
    return revision;
  }

  /** The records of rotations that the change began or completed. */
  async #remember(keyId: string, { begun, completed }: WaitingDoc): Promise<void> {
    const { rotations } = this.#database;
    if (completed !== undefined) {
      const update = { $set: { complete_time: completed.time } };
      await guarded((limits) =>
        rotations.updateOne({ _id: completed.id }, update, { upsert: true, ...limits }),
      );
    }
    if (begun === undefined) return;
    const { id, ...fields } = begun;
    // A sweeper may come late: these never change, and what was completed since stays so.
    const update = { $set: { key_id: keyId, ...fields } };
    await guarded((limits) => rotations.updateOne({ _id: id }, update, { upsert: true, ...limits }));
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

  /** A read that decisions rest on. */
  async #one<T>(read: (options: FindOptions) => Promise<T>): Promise<T> {
    try {
      return await this.#reads.one(read);
    } catch (error) {
      throw toApiError(error);
    }
  }

  async #tookPlace(id: string, op: string): Promise<boolean> {
    return (
      (await guarded((limits) =>
        this.#database.keys.findOne({ _id: id, ops: op }, { projection: { _id: 1 }, ...limits }),
      )) !== null
    );
  }

  async #collision(key: Key): Promise<Inserted> {
    if (key.requestId === undefined) return { outcome: 'COLLISION' };
    const request_id = key.requestId;
    const holder = await guarded((limits) => this.#database.keys.findOne({ request_id }, limits));
    return holder === null ? { outcome: 'COLLISION' } : { outcome: 'REQUEST_ID_USED', key: toKey(holder) };
  }

  /** Nothing matched: another version (undefined), or an outbox that a log which is away has filled. */
  async #missed(id: string, etag: string): Promise<undefined> {
    const same = await guarded((limits) =>
      this.#database.keys.findOne({ _id: id, etag }, { projection: { _id: 1 }, ...limits }),
    );
    if (same === null) return undefined;
    const text = 'too many changes of this key are waiting for the audit log';
    throw new ApiError('AUDIT_OVERLOADED', text, { retryAfterMs: 1000 });
  }
}

function documentOf(key: Key): OptionalUnlessRequiredId<KeyDoc> {
  return { _id: key.id, ...keyFields(key).set, revision: 0, outbox: [], ops: [] };
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

import type { Collection, Filter } from 'mongodb';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type { RemoteKeyChange, RemoteKeyLog, RemoteKeyRecord } from '../../keys/remote-keys.ts';
import type { MongoAuditLog } from './audit-log.ts';
import { guarded } from './errors.ts';
import { Outbox } from './outbox.ts';
import type { RemoteKeyDoc } from './rows.ts';

/** As many as a list of Gitea may have (integrations/gitea.ts). */
const MAX_LISTED = 10_000;

export class MongoRemoteKeyLog implements RemoteKeyLog {
  readonly #collection: () => Collection<RemoteKeyDoc>;
  readonly #outbox: Outbox<RemoteKeyDoc>;

  constructor(collection: () => Collection<RemoteKeyDoc>, audit: MongoAuditLog) {
    this.#collection = collection;
    this.#outbox = new Outbox(collection, audit);
  }

  async put(record: RemoteKeyRecord, entry: AuditEntry): Promise<void> {
    const event = this.#outbox.event(entry);
    const { set, unset } = fieldsOf(record);
    const update = {
      $set: set,
      ...(unset.length === 0 ? {} : { $unset: Object.fromEntries(unset.map((name) => [name, '' as const])) }),
      $push: { outbox: event },
    };
    await guarded((limits) =>
      this.#collection().updateOne({ _id: record.id }, update, { upsert: true, ...limits }),
    );
    await this.#outbox.finish(record.id, event);
  }

  async change(id: string, change: RemoteKeyChange, entry: AuditEntry): Promise<boolean> {
    const event = this.#outbox.event(entry);
    const $set =
      'deleteTime' in change
        ? { delete_time: new Date(change.deleteTime) }
        : { last_verify_time: new Date(change.lastVerifyTime), last_verify_alive: change.lastVerifyAlive };
    const { matchedCount } = await guarded((limits) =>
      this.#collection().updateOne({ _id: id }, { $set, $push: { outbox: event } }, { ...limits }),
    );
    if (matchedCount === 0) return false;
    await this.#outbox.finish(id, event);
    return true;
  }

  async get(id: string): Promise<RemoteKeyRecord | undefined> {
    return (await this.#read({ _id: id }))[0];
  }

  async findByHash(hash: string): Promise<RemoteKeyRecord | undefined> {
    return (await this.#read({ hash }))[0];
  }

  list(user: string): Promise<readonly RemoteKeyRecord[]> {
    return this.#read({ user, delete_time: { $exists: false } });
  }

  finishAbandoned(now: number): Promise<void> {
    return this.#outbox.finishAbandoned(now);
  }

  async #read(where: Filter<RemoteKeyDoc>): Promise<RemoteKeyRecord[]> {
    const docs = await guarded((limits) =>
      this.#collection().find(where, limits).sort({ create_time: -1, _id: -1 }).limit(MAX_LISTED).toArray(),
    );
    return docs.map(toRecord);
  }
}

function fieldsOf(record: RemoteKeyRecord) {
  const date = (time: number | undefined) => (time === undefined ? undefined : new Date(time));
  const { user, name, lastEight, hash, createTime } = record;
  const set = {
    user,
    name,
    scopes: [...record.scopes],
    last_eight: lastEight,
    hash,
    create_time: new Date(createTime),
  };
  const optional = {
    expire_time: date(record.expireTime),
    delete_time: date(record.deleteTime),
    last_verify_time: date(record.lastVerifyTime),
    last_verify_alive: record.lastVerifyAlive,
  };
  const present = Object.entries(optional).filter(([, value]) => value !== undefined);
  const unset = Object.keys(optional).filter(
    (field) => optional[field as keyof typeof optional] === undefined,
  );
  return { set: { ...set, ...Object.fromEntries(present) }, unset };
}

function toRecord(doc: RemoteKeyDoc): RemoteKeyRecord {
  return {
    id: doc._id,
    user: doc.user,
    name: doc.name,
    scopes: doc.scopes,
    lastEight: doc.last_eight,
    hash: doc.hash,
    createTime: doc.create_time.getTime(),
    expireTime: doc.expire_time?.getTime(),
    deleteTime: doc.delete_time?.getTime(),
    lastVerifyTime: doc.last_verify_time?.getTime(),
    lastVerifyAlive: doc.last_verify_alive,
  };
}

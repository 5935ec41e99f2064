import type { Collection, Filter } from 'mongodb';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type {
  RemoteKeyChange,
  RemoteKeyLog,
  RemoteKeyRecord,
  RemoteUser,
  RemoteVerdict,
} from '../../keys/remote-keys.ts';
import type { MongoAuditLog } from './audit-log.ts';
import { guarded } from './errors.ts';
import { Outbox } from './outbox.ts';
import type { RemoteKeyDoc } from './rows.ts';

/** The most entries that a list of Gitea may have (integrations/gitea.ts). */
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
    const update = { ...updateOf(fieldsOf(record)), $push: { outbox: event } };
    await guarded((limits) =>
      this.#collection().updateOne({ _id: record.id }, update, { upsert: true, ...limits }),
    );
    await this.#outbox.finish(record.id, event);
  }

  async change(id: string, change: RemoteKeyChange, entry: AuditEntry): Promise<boolean> {
    const event = this.#outbox.event(entry);
    const update = { ...updateOf(changed(change)), $push: { outbox: event } };
    const { matchedCount } = await guarded((limits) =>
      this.#collection().updateOne({ _id: id }, update, { ...limits }),
    );
    if (matchedCount === 0) return false;
    await this.#outbox.finish(id, event);
    return true;
  }

  find(ids: readonly string[]): Promise<readonly RemoteKeyRecord[]> {
    return this.#read({ _id: { $in: [...ids] } });
  }

  async findByHash(hash: string): Promise<RemoteKeyRecord | undefined> {
    return (await this.#read({ hash }))[0];
  }

  list({ user, userId }: RemoteUser): Promise<readonly RemoteKeyRecord[]> {
    const whose = userId === undefined ? { user } : { $or: [{ user }, { user_id: userId }] };
    return this.#read({ ...whose, delete_time: { $exists: false } });
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

/** An undefined field is removed. */
type Fields = { [F in keyof Omit<RemoteKeyDoc, '_id' | 'outbox'>]?: RemoteKeyDoc[F] | undefined };

function updateOf(fields: Fields) {
  const all = Object.entries(fields);
  const $set = Object.fromEntries(all.filter(([, value]) => value !== undefined));
  const $unset = Object.fromEntries(
    all.filter(([, value]) => value === undefined).map(([name]) => [name, '' as const]),
  );
  return { $set, ...(Object.keys($unset).length === 0 ? {} : { $unset }) };
}

function changed(change: RemoteKeyChange): Fields {
  if ('deleteTime' in change) return { delete_time: new Date(change.deleteTime) };
  if ('seenOf' in change) {
    const { user, userId } = change.seenOf;
    return { delete_time: undefined, user, ...(userId === undefined ? {} : { user_id: userId }) };
  }
  return { last_verify_time: new Date(change.lastVerifyTime), ...verdictFields(change.lastVerifyResult) };
}

function verdictFields(result: RemoteVerdict | undefined): Fields {
  return {
    last_verify_alive: result === undefined ? undefined : result === 'ALIVE',
    last_verify_unusable: result === 'UNUSABLE' ? true : undefined,
  };
}

function fieldsOf(record: RemoteKeyRecord): Fields {
  const date = (time: number | undefined) => (time === undefined ? undefined : new Date(time));
  return {
    user: record.user,
    user_id: record.userId,
    name: record.name,
    scopes: [...record.scopes],
    last_eight: record.lastEight,
    hash: record.hash,
    create_time: new Date(record.createTime),
    expire_time: date(record.expireTime),
    delete_time: date(record.deleteTime),
    last_verify_time: date(record.lastVerifyTime),
    ...verdictFields(record.lastVerifyResult),
  };
}

function verdictOf({ last_verify_alive: alive, last_verify_unusable: unusable }: RemoteKeyDoc) {
  if (alive === undefined) return undefined;
  return alive ? 'ALIVE' : unusable === true ? 'UNUSABLE' : 'DEAD';
}

function toRecord(doc: RemoteKeyDoc): RemoteKeyRecord {
  return {
    id: doc._id,
    user: doc.user,
    userId: doc.user_id,
    name: doc.name,
    scopes: doc.scopes,
    lastEight: doc.last_eight,
    hash: doc.hash,
    createTime: doc.create_time.getTime(),
    expireTime: doc.expire_time?.getTime(),
    deleteTime: doc.delete_time?.getTime(),
    lastVerifyTime: doc.last_verify_time?.getTime(),
    lastVerifyResult: verdictOf(doc),
  };
}

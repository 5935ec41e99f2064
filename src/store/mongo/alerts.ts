import type { Filter } from 'mongodb';
import type { Alert, AlertLog } from '../../keys/notices.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { pagedBy } from '../paging.ts';
import { deleteSome, type MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, toApiError } from './errors.ts';
import { type AlertDoc, afterTime } from './rows.ts';

export class MongoAlertLog implements AlertLog {
  readonly #database: MongoDatabase;

  constructor(database: MongoDatabase) {
    this.#database = database;
  }

  async insert({ id, type, time, keyId, clientIp, text, detail }: Alert): Promise<boolean> {
    const doc: AlertDoc = { _id: id, type, time: new Date(time), text, detail: { ...detail }, pending: true };
    if (keyId !== '') doc.key_id = keyId;
    if (clientIp !== '') doc.client_ip = clientIp;
    try {
      await inTime((limits) => this.#database.alerts.insertOne(doc, { ...limits }));
      return true;
    } catch (error) {
      if (failureOf(error) === 'DUPLICATE') return false;
      throw toApiError(error);
    }
  }

  async get(id: string): Promise<Alert | undefined> {
    const doc = await guarded((limits) => this.#database.alerts.findOne({ _id: id }, limits));
    return doc === null ? undefined : toAlert(doc);
  }

  list(since: number, page: Page): Promise<Paged<Alert>> {
    return guarded(async (limits) => {
      const where: Filter<AlertDoc>[] = [{ time: { $gte: new Date(since) } }];
      if (page.after !== undefined) where.push(afterTime('time', page.after));
      const docs = await this.#database.alerts
        .find({ $and: where }, limits)
        .sort({ time: 1, _id: 1 })
        .limit(page.size + 1)
        .toArray();
      return pagedBy(docs.map(toAlert), page.size, ({ time, id }) => [time, id]);
    });
  }

  async undelivered(time: number, limit: number): Promise<readonly Alert[]> {
    const docs = await guarded((limits) =>
      this.#database.alerts
        .find({ pending: true, time: { $lt: new Date(time) } }, limits)
        .sort({ time: 1 })
        .limit(limit)
        .toArray(),
    );
    return docs.map(toAlert);
  }

  async markDelivered(id: string): Promise<void> {
    const update = { $unset: { pending: '' as const } };
    await guarded((limits) => this.#database.alerts.updateOne({ _id: id }, update, { ...limits }));
  }

  deleteBefore(time: number, limit: number): Promise<number> {
    const old = { time: { $lt: new Date(time) }, pending: { $exists: false } };
    return deleteSome(this.#database.alerts, old, limit, { time: 1 });
  }
}

function toAlert(doc: AlertDoc): Alert {
  return {
    id: doc._id,
    type: doc.type as Alert['type'],
    time: doc.time.getTime(),
    keyId: doc.key_id ?? '',
    clientIp: doc.client_ip ?? '',
    text: doc.text,
    detail: doc.detail,
  };
}

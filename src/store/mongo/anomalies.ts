import { randomBytes } from 'node:crypto';
import type { Filter } from 'mongodb';
import type { Anomaly, AnomalyFilter, AnomalyLog, ThresholdExceeded } from '../../keys/notices.ts';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { pagedBy } from '../paging.ts';
import { backoff } from '../retry.ts';
import type { MongoAuditLog } from './audit-log.ts';
import { deleteSome, type MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, toApiError } from './errors.ts';
import { Outbox } from './outbox.ts';
import { type AnomalyDoc, beforeTime } from './rows.ts';

const MAX_ATTEMPTS = 8;

export class MongoAnomalyLog implements AnomalyLog {
  readonly #database: MongoDatabase;
  readonly #outbox: Outbox<AnomalyDoc>;

  constructor(database: MongoDatabase, audit: MongoAuditLog) {
    this.#database = database;
    this.#outbox = new Outbox(() => database.anomalies, audit);
  }

  async trip({ keyId, type, count, firstTime, lastTime }: ThresholdExceeded): Promise<Anomaly> {
    const open_for = `${keyId}:${type}`;
    const update = {
      $inc: { count },
      $max: { last_time: new Date(lastTime) },
      $setOnInsert: {
        _id: `anomaly-${randomBytes(8).toString('hex')}`,
        key_id: keyId,
        type,
        state: 'OPEN',
        first_time: new Date(firstTime),
      },
    };
    for (let attempt = 1; ; attempt++) {
      try {
        const doc = await inTime((limits) =>
          this.#database.anomalies.findOneAndUpdate({ open_for }, update, {
            upsert: true,
            returnDocument: 'after',
            ...limits,
          }),
        );
        if (doc !== null) return toAnomaly(doc);
      } catch (error) {
        // Another process opened the same anomaly first (unique index): the retry adds to that one.
        if (attempt >= MAX_ATTEMPTS || failureOf(error) !== 'DUPLICATE') throw toApiError(error);
        await backoff(attempt, 5, 100);
      }
    }
  }

  list(filter: AnomalyFilter, page: Page): Promise<Paged<Anomaly>> {
    return guarded(async (limits) => {
      const where: Filter<AnomalyDoc>[] = [{}];
      if (filter.keyId !== undefined) where.push({ key_id: filter.keyId });
      if (filter.type !== undefined) where.push({ type: filter.type });
      if (filter.state !== undefined) where.push({ state: filter.state });
      if (page.after !== undefined) where.push(beforeTime('first_time', page.after));
      const docs = await this.#database.anomalies
        .find({ $and: where }, limits)
        .sort({ first_time: -1, _id: -1 })
        .limit(page.size + 1)
        .toArray();
      return pagedBy(docs.map(toAnomaly), page.size, ({ firstTime, id }) => [firstTime, id]);
    });
  }

  /** The write puts the event into the document's outbox, as with keys (docs/design/outbox.md). */
  async resolve(id: string, time: number, entry: AuditEntry): Promise<Anomaly | undefined> {
    const event = this.#outbox.event(entry);
    const resolved = await guarded((limits) =>
      this.#database.anomalies.updateOne(
        { _id: id, state: 'OPEN' },
        {
          $set: { state: 'RESOLVED', resolve_time: new Date(time) },
          $unset: { open_for: '' },
          $push: { outbox: event },
        },
        { ...limits },
      ),
    );
    const doc = await guarded((limits) => this.#database.anomalies.findOne({ _id: id }, limits));
    if (doc === null) return undefined;
    if (resolved.matchedCount === 1) await this.#outbox.finish(id, event);
    else await this.#outbox.append(event);
    return toAnomaly(doc);
  }

  deleteResolvedBefore(time: number, limit: number): Promise<number> {
    const old = { state: 'RESOLVED', resolve_time: { $lt: new Date(time) } };
    return deleteSome(this.#database.anomalies, old, limit);
  }

  finishAbandoned(now: number): Promise<void> {
    return this.#outbox.finishAbandoned(now);
  }
}

function toAnomaly(doc: AnomalyDoc): Anomaly {
  return {
    id: doc._id,
    keyId: doc.key_id,
    type: doc.type as Anomaly['type'],
    state: doc.state as Anomaly['state'],
    count: doc.count,
    firstTime: doc.first_time.getTime(),
    lastTime: doc.last_time.getTime(),
    resolveTime: doc.resolve_time?.getTime(),
  };
}

import type { Collection, Filter, UpdateFilter } from 'mongodb';
import type { AuditEntry } from '../../keys/ports/audit.ts';
import type { MongoAuditLog } from './audit-log.ts';
import { guarded } from './errors.ts';
import { ABANDONED_MS, type EventDoc, toEvent, toEventDoc } from './rows.ts';

const SWEEP_DOCUMENTS = 100;

interface Carrier {
  _id: string;
  outbox?: EventDoc[];
}

/** Events that wait in the documents they are about until they are in the log (docs/design/outbox.md). */
export class Outbox<T extends Carrier> {
  /** Called each time: after a reconnect the collection is a new object. */
  readonly #collection: () => Collection<T>;
  readonly #audit: MongoAuditLog;

  constructor(collection: () => Collection<T>, audit: MongoAuditLog) {
    this.#collection = collection;
    this.#audit = audit;
  }

  /** An event that the write it is about must push onto `outbox`. */
  event(entry: AuditEntry): EventDoc {
    return toEventDoc(this.#audit.events.create(entry));
  }

  /** For the event of a call that changed nothing. */
  append(event: EventDoc): Promise<void> {
    return this.#audit.append(toEvent(event));
  }

  /** Moves the event to the log, after the write. May run twice. */
  async finish(id: string, event: EventDoc): Promise<void> {
    await this.append(event);
    const update = { $pull: { outbox: { id: event.id } } } as unknown as UpdateFilter<T>;
    await guarded((limits) => this.#collection().updateOne({ _id: id } as Filter<T>, update, { ...limits }));
  }

  /** Moves the events that crashed processes left behind. */
  async finishAbandoned(now: number): Promise<void> {
    const waiting = { 'outbox.id': { $gt: '' } } as unknown as Filter<T>;
    const docs = await guarded((limits) =>
      this.#collection().find(waiting, limits).limit(SWEEP_DOCUMENTS).toArray(),
    );
    for (const doc of docs) {
      for (const event of doc.outbox ?? [])
        if (event.time.getTime() < now - ABANDONED_MS) await this.finish(doc._id, event);
    }
  }
}

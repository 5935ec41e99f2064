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

/** Events that ride in the documents they are about until they are in the log (docs/design/outbox.md). */
export class Outbox<T extends Carrier> {
  /** Asked each time: a new connection brings new ones. */
  readonly #collection: () => Collection<T>;
  readonly #audit: MongoAuditLog;

  constructor(collection: () => Collection<T>, audit: MongoAuditLog) {
    this.#collection = collection;
    this.#audit = audit;
  }

  /** To be pushed onto `outbox` by the write that it is about. */
  event(entry: AuditEntry): EventDoc {
    return toEventDoc(this.#audit.events.create(entry));
  }

  /** For a call that turned out to change nothing. */
  append(event: EventDoc): Promise<void> {
    return this.#audit.append(toEvent(event));
  }

  /** After that write. May be done twice. */
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

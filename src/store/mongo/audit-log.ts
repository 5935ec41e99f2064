import { type Filter, MongoBulkWriteError } from 'mongodb';
import type { AuditEvent, EventFactory } from '../../audit/event.ts';
import { GapReporter } from '../../audit/gap-reporter.ts';
import { GroupCommit } from '../../audit/group-commit.ts';
import type { AuditEntry, AuditFilter, AuditLog, AuditRecord, Clock, Page, Paged } from '../../keys/ports.ts';
import { pagedBy, wrongToken } from '../paging.ts';
import { backoff } from '../retry.ts';
import type { Warn } from '../store.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, unavailableAudit } from './errors.ts';
import { type AuditDoc, toEventDoc, toRecord } from './rows.ts';

const MAX_QUEUED = 20_000;
const MAX_BATCH = 1_000;
const WAIT_LIMIT_MS = 4_000;
/** Rows that are not acknowledged by then are sent again. */
const SEND_MS = 3_000;

/** The log on MongoDB: ordered inserts, one batch in flight, sent again until acknowledged. */
export class MongoAuditLog implements AuditLog {
  readonly events: EventFactory;
  readonly #database: MongoDatabase;
  readonly #group: GroupCommit<AuditEvent>;
  readonly #gaps: GapReporter;
  readonly #warn: Warn;
  readonly #closed = new AbortController();
  #sequence = 0;

  constructor(database: MongoDatabase, events: EventFactory, clock: Clock, warn: Warn) {
    this.events = events;
    this.#database = database;
    this.#warn = warn;
    this.#group = new GroupCommit({
      write: (batch) => this.#write(batch),
      maxQueued: MAX_QUEUED,
      maxBatch: MAX_BATCH,
      waitLimitMs: WAIT_LIMIT_MS,
      clock,
    });
    this.#gaps = new GapReporter((entry) => this.record(entry), clock);
  }

  record(entry: AuditEntry): Promise<void> {
    return this.append(this.events.create(entry));
  }

  /** The same for an event that has its id already: one that rode in a key document. */
  append(event: AuditEvent): Promise<void> {
    return this.#group.add(event);
  }

  countRefused(calls: number): void {
    this.#gaps.count(calls);
  }

  async list(filter: AuditFilter, page: Page): Promise<Paged<AuditRecord>> {
    const where: Filter<AuditDoc>[] = [];
    if (filter.keyId !== undefined) where.push({ key_id: filter.keyId });
    if (filter.callerKeyId !== undefined) where.push({ caller_key_id: filter.callerKeyId });
    if (filter.method !== undefined) where.push({ method: filter.method });
    if (filter.outcome !== undefined) where.push({ outcome: filter.outcome });
    if (filter.clientIp !== undefined) where.push({ client_ip: filter.clientIp });
    if (filter.secretSlot !== undefined) where.push({ secret_slot: filter.secretSlot });
    if (filter.startTime !== undefined) where.push({ time: { $gte: new Date(filter.startTime) } });
    if (filter.endTime !== undefined) where.push({ time: { $lt: new Date(filter.endTime) } });
    if (page.after !== undefined) where.push(before(page.after));
    const query = where.length === 0 ? {} : { $and: where };
    return guarded(async (limits) => {
      const order = { time: -1, sequence: -1, _id: -1 } as const;
      const docs = await this.#database.audit
        .find(query, limits)
        .sort(order)
        .limit(page.size + 1)
        .toArray();
      const paged = pagedBy(docs, page.size, (doc) => [doc.time.getTime(), doc.sequence, doc._id]);
      return { items: paged.items.map(toRecord), next: paged.next };
    });
  }

  count(): Promise<number> {
    return guarded((limits) => this.#database.audit.countDocuments({}, limits));
  }

  countByOutcome(since: number): Promise<ReadonlyMap<string, number>> {
    return guarded(async (limits) => {
      const pipeline = [
        { $match: { time: { $gte: new Date(since) } } },
        { $group: { _id: '$outcome', n: { $sum: 1 } } },
      ];
      const rows = await this.#database.audit
        .aggregate<{ _id: string; n: number }>(pipeline, limits)
        .toArray();
      return new Map(rows.map((row) => [row._id, Number(row.n)]));
    });
  }

  deleteBefore(time: number, limit: number): Promise<number> {
    return guarded(async (limits) => {
      const old = this.#database.audit.find(
        { time: { $lt: new Date(time) } },
        { projection: { _id: 1 }, ...limits },
      );
      const ids = (await old.sort({ time: 1 }).limit(limit).toArray()).map(({ _id }) => _id);
      if (ids.length === 0) return 0;
      return (await this.#database.audit.deleteMany({ _id: { $in: ids } }, { ...limits })).deletedCount;
    });
  }

  /** Writes what is queued; what a store that is away keeps from being written is given up after `limitMs`. */
  async close(limitMs: number): Promise<void> {
    await Promise.race([this.#gaps.flush(), backoff(1, limitMs, limitMs)]);
    await Promise.race([this.#group.drained(), backoff(1, limitMs, limitMs)]);
    this.#closed.abort();
  }

  /** Rows keep their place and are sent again until the log has acknowledged each. */
  async #write(batch: AuditEvent[]): Promise<void> {
    let left = batch;
    for (let attempt = 1; left.length > 0; attempt++) {
      const docs = left.map((event, i): AuditDoc => {
        const { id, ...rest } = toEventDoc(event);
        return { _id: id, process_id: this.events.processId, sequence: this.#sequence + 1 + i, ...rest };
      });
      try {
        await inTime(
          (limits) => this.#database.audit.insertMany(docs, { ordered: true, ...limits }),
          SEND_MS,
        );
        this.#sequence += docs.length;
        return;
      } catch (error) {
        const settled = await this.#settle(docs, error);
        left = left.slice(settled);
        if (settled > 0) attempt = 0;
        else {
          if (attempt === 1) this.#warn('the audit log does not take events, trying again', error);
          await this.#pause(attempt, error);
        }
      }
    }
  }

  /** How many rows from the front are in the log for certain. */
  async #settle(docs: readonly AuditDoc[], error: unknown): Promise<number> {
    const inserted = error instanceof MongoBulkWriteError ? error.insertedCount : 0;
    const concern = error instanceof MongoBulkWriteError && error.result.getWriteConcernError() !== undefined;
    if (concern || failureOf(error) !== 'DUPLICATE') return 0;
    this.#sequence += inserted;
    const doubted = docs[inserted];
    const there = doubted === undefined ? null : await this.#find(doubted._id);
    if (there === null) return inserted;
    // In this process's own chain it keeps its number; one that a sweeper has moved stands in another and needs none.
    if (there.process_id === this.events.processId && there.sequence === doubted?.sequence) this.#sequence++;
    return inserted + 1;
  }

  async #find(id: string): Promise<AuditDoc | null> {
    try {
      return await inTime((limits) => this.#database.audit.findOne({ _id: id }, limits), SEND_MS);
    } catch {
      // Not an answer: the row is simply sent again.
      return null;
    }
  }

  async #pause(attempt: number, cause: unknown): Promise<void> {
    try {
      await backoff(attempt, 50, 1000, this.#closed.signal);
    } catch {
      throw unavailableAudit(cause);
    }
  }
}

function before([time, sequence, id]: readonly (string | number)[]): Filter<AuditDoc> {
  if (typeof time !== 'number' || typeof sequence !== 'number' || typeof id !== 'string') throw wrongToken();
  const at = new Date(time);
  return {
    $or: [
      { time: { $lt: at } },
      { time: at, sequence: { $lt: sequence } },
      { time: at, sequence, _id: { $lt: id } },
    ],
  };
}

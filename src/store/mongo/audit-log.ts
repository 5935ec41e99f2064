import { type Filter, MongoBulkWriteError } from 'mongodb';
import { type Chain, GENESIS } from '../../audit/chain.ts';
import { checkpointEntries, unlisted } from '../../audit/checkpoint.ts';
import type { AuditEvent, EventFactory } from '../../audit/event.ts';
import { columnOf, equalities, eventText } from '../../audit/fields.ts';
import { GapReporter } from '../../audit/gap-reporter.ts';
import { GroupCommit } from '../../audit/group-commit.ts';
import type {
  AuditEntry,
  AuditFilter,
  AuditLog,
  AuditRecord,
  ChainHead,
  ChainPlace,
} from '../../keys/ports/audit.ts';
import type { Clock } from '../../keys/ports/clock.ts';
import type { Page, Paged } from '../../keys/ports/page.ts';
import { pagedBy, startOf } from '../paging.ts';
import { backoff } from '../retry.ts';
import type { AuditBacklog, Warn } from '../store.ts';
import { noteFields, noteId, noteListed, readHeads } from './chain-notes.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, unavailableAudit } from './errors.ts';
import { type AuditDoc, toEventDoc, toRecord } from './rows.ts';

const MAX_QUEUED = 20_000;
const MAX_BATCH = 1_000;
const WAIT_LIMIT_MS = 4_000;
/** Rows without an acknowledgement after this time are sent again. */
const SEND_MS = 3_000;

/** Counts the rows of the log. */
export interface Stored {
  add(docs: readonly AuditDoc[]): void;
}
const NOBODY: Stored = { add: () => {} };

/** The audit log on MongoDB: ordered inserts, one batch in flight, sent again until it is acknowledged. */
export class MongoAuditLog implements AuditLog {
  readonly events: EventFactory;
  readonly #database: MongoDatabase;
  readonly #group: GroupCommit<AuditEvent>;
  readonly #gaps: GapReporter;
  readonly #chain: Chain;
  readonly #clock: Clock;
  readonly #warn: Warn;
  readonly #stored: Stored;
  readonly #closed = new AbortController();
  /** The sequence of the last row that is certainly in the log. */
  #sequence = 0;
  #head = GENESIS;
  #savedSequence = 0;
  /** Whether the note and the first events of the chain are written. */
  #begun = false;
  /** The ends of other chains that the first events name. */
  #named: readonly ChainHead[] = [];

  /** @param stored receives, in order, the rows that are certainly in the log */
  constructor(
    database: MongoDatabase,
    events: EventFactory,
    chain: Chain,
    clock: Clock,
    warn: Warn,
    stored: Stored = NOBODY,
    written?: (events: number, ms: number) => void,
  ) {
    this.#stored = stored;
    this.#chain = chain;
    this.#clock = clock;
    this.events = events;
    this.#database = database;
    this.#warn = warn;
    this.#group = new GroupCommit({
      write: (batch) => this.#write(batch),
      maxQueued: MAX_QUEUED,
      maxBatch: MAX_BATCH,
      waitLimitMs: WAIT_LIMIT_MS,
      clock,
      written,
    });
    this.#gaps = new GapReporter((entry) => this.record(entry), clock);
  }

  record(entry: AuditEntry): Promise<void> {
    return this.append(this.events.create(entry));
  }

  /** The same for an event with an id: one from the outbox of a document. */
  append(event: AuditEvent): Promise<void> {
    return this.#group.add(event);
  }

  get backlog(): AuditBacklog {
    return { waiting: this.#group.pending, limit: MAX_QUEUED, unrecorded: this.#gaps.total };
  }

  countRefused(calls: number): void {
    this.#gaps.count(calls);
  }

  async list(filter: AuditFilter, page: Page): Promise<Paged<AuditRecord>> {
    const where: Filter<AuditDoc>[] = equalities(filter).map(({ name, value }) => ({
      [columnOf(name)]: value,
    }));
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

  /** The certain end of this process's chain. */
  get place(): ChainPlace | undefined {
    const { processId } = this.events;
    return this.#sequence === 0 ? undefined : { processId, sequence: this.#sequence, hash: this.#head };
  }

  /** Notes that the named ends are in the log; runs after the events that name them are. */
  async #noteNamed(): Promise<void> {
    const named = this.#named;
    this.#named = [];
    await noteListed(this.#database, this.#chain, named);
  }

  /** Notes where the chain ends: rows up to there can no longer be removed unnoticed. */
  async saveHead(closed = false): Promise<void> {
    const sequence = this.#sequence;
    if (sequence > 0) await this.#noteNamed();
    if (!closed && sequence === this.#savedSequence) return;
    await this.#saveNote(closed);
    this.#savedSequence = sequence;
  }

  /** Writes the queued events; while the store is unavailable, gives them up after `limitMs`. */
  async close(limitMs: number): Promise<void> {
    await Promise.race([this.#gaps.flush(), backoff(1, limitMs, limitMs)]);
    await Promise.race([this.#group.drained(), backoff(1, limitMs, limitMs)]);
    this.#closed.abort();
    if (this.#sequence > 0)
      await this.saveHead(this.#group.pending === 0).catch(() => {
        // The store is unavailable: the note keeps saying that the chain is open, which is true.
      });
  }

  /** Rows keep their places in the chain and are sent again until each is acknowledged. */
  async #write(batch: AuditEvent[]): Promise<void> {
    let left = this.#begun ? batch : [...(await this.#begin()), ...batch];
    for (let attempt = 1; left.length > 0; attempt++) {
      const docs = this.#link(left);
      try {
        await inTime(
          (limits) => this.#database.audit.insertMany(docs, { ordered: true, ...limits }),
          SEND_MS,
        );
        this.#stand(docs);
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

  /** Writes the note that the chain exists, and returns its first events: they name the ends of the other chains. */
  async #begin(): Promise<AuditEvent[]> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#saveNote(false);
        const heads = unlisted(this.#chain, await readHeads(this.#database), this.events.processId);
        const entries = checkpointEntries('heads', heads, this.#clock.now());
        this.#begun = true;
        this.#named = heads;
        return entries.map((entry) => this.events.create(entry));
      } catch (error) {
        if (attempt === 1) this.#warn('the audit log does not take events, trying again', error);
        await this.#pause(attempt, error);
      }
    }
  }

  async #saveNote(closed: boolean): Promise<void> {
    const { processId } = this.events;
    const head = { processId, sequence: this.#sequence, hash: this.#head, closed };
    const update = { $set: noteFields(this.#chain, head) };
    await guarded((limits) =>
      this.#database.meta.updateOne({ _id: noteId(processId) }, update, { upsert: true, ...limits }),
    );
  }

  /** Links the events to the certain end of the chain: each retry sends the same rows. */
  #link(events: readonly AuditEvent[]): AuditDoc[] {
    const { processId } = this.events;
    let [sequence, hash] = [this.#sequence, this.#head];
    return events.map((event) => {
      const { id, ...rest } = toEventDoc(event);
      const servedBy = event.servedBy === processId ? '' : event.servedBy;
      sequence++;
      const link = { id, processId, sequence, servedBy };
      hash = this.#chain.next(hash, link, event.entry.time, eventText(event.entry));
      return { _id: id, process_id: processId, sequence, hash, ...rest };
    });
  }

  #stand(docs: readonly AuditDoc[]): void {
    const last = docs.at(-1);
    if (last === undefined) return;
    this.#stored.add(docs);
    this.#sequence = last.sequence;
    this.#head = last.hash;
  }

  /** Returns how many rows from the front are certainly in the log. */
  async #settle(docs: readonly AuditDoc[], error: unknown): Promise<number> {
    const inserted = error instanceof MongoBulkWriteError ? error.insertedCount : 0;
    const concern = error instanceof MongoBulkWriteError && error.result.getWriteConcernError() !== undefined;
    if (concern || failureOf(error) !== 'DUPLICATE') return 0;
    this.#stand(docs.slice(0, inserted));
    const doubted = docs[inserted];
    const there = doubted === undefined ? null : await this.#find(doubted._id);
    if (there === null || doubted === undefined) return inserted;
    // The same place: this row was written. Another: a sweeper moved the event to its own chain, so this one omits it.
    const same = there.process_id === doubted.process_id && there.sequence === doubted.sequence;
    if (same && there.hash === doubted.hash) this.#stand([doubted]);
    return inserted + 1;
  }

  async #find(id: string): Promise<AuditDoc | null> {
    try {
      return await inTime((limits) => this.#database.audit.findOne({ _id: id }, limits), SEND_MS);
    } catch {
      // The read failed too: the row is sent again.
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

function before(after: readonly (string | number)[]): Filter<AuditDoc> {
  const [time, sequence = 0, id = ''] = startOf(after, 'number', 'number', 'string');
  const at = new Date(Number(time));
  return {
    $or: [
      { time: { $lt: at } },
      { time: at, sequence: { $lt: Number(sequence) } },
      { time: at, sequence: Number(sequence), _id: { $lt: String(id) } },
    ],
  };
}

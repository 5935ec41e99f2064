import { MongoBulkWriteError } from 'mongodb';
import { UsageCounter, type UsageRound } from '../../audit/usage-counter.ts';
import type { UsageFilter, UsageLog, UsageRow } from '../../keys/ports/usage.ts';
import { HEAD, HEADS } from './chain-notes.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded } from './errors.ts';
import type { Registry } from './registry.ts';
import { type AuditDoc, toRecord } from './rows.ts';

/** The most counts in one write, and the most events in one read of the log. */
const SLICE = 500;
const SCAN = 5_000;
/** How far the counts may be behind the log while the process runs. */
const FLUSH_MS = 5_000;
/** The most keys of one owner whose counts are summed up. */
const MAX_OWNED = 10_000;

/** A chain is counted up to `counted`; a round that was begun ends at `roundEnd`. */
interface Reached {
  readonly counted: number;
  readonly roundEnd: number;
}

/**
 * The counts of decisions. Each process counts its own chain; the sweeper counts from the log the chains of processes
 * that are gone. A guarded write begins a round, so a process that finds an unfinished round repeats the same one, and
 * skips counts that have reached its end: nothing is counted twice, even if a living process is taken for gone.
 */
export class MongoUsageLog implements UsageLog {
  readonly #database: MongoDatabase;
  readonly #processId: string;
  readonly #registry: Registry;
  #counter = new UsageCounter();
  /** The last durable event of the own chain, and the event before the first one in the counter. */
  #last = 0;
  #base = 0;
  #flushing: Promise<void> | undefined;
  #flushed = Number.NEGATIVE_INFINITY;

  constructor(database: MongoDatabase, processId: string, registry: Registry) {
    this.#database = database;
    this.#processId = processId;
    this.#registry = registry;
  }

  /** Counts acknowledged rows of the own chain, in their order. */
  add(docs: readonly AuditDoc[]): void {
    for (const doc of docs) {
      this.#counter.add(toRecord(doc), doc.sequence);
      this.#last = doc.sequence;
    }
  }

  /** Starts a flush every FLUSH_MS, without waiting for it. @param now monotonic, in ms */
  flushIfDue(now: number, failed: (error: unknown) => void): void {
    if (now - this.#flushed < FLUSH_MS) return;
    this.#flushed = now;
    this.flush().catch(failed);
  }

  flush(): Promise<void> {
    this.#flushing ??= this.#flushOwn().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async #flushOwn(): Promise<void> {
    const round = this.#counter.round();
    if (round === undefined) return;
    const reached = await this.#reached(this.#processId);
    const begun = reached.counted === this.#base && reached.roundEnd === round.end;
    if (!begun && !(await this.#begin(this.#processId, reached, this.#base, round.end))) {
      // Another process took this one for gone and counted further: the rest is counted from the log.
      this.#counter = new UsageCounter();
      this.#base = this.#last;
      await this.#countFromLog(this.#processId, this.#last);
      return;
    }
    await this.#write(this.#processId, round);
    await this.#end(this.#processId, this.#base, round.end);
    this.#base = round.end;
    this.#counter.finished();
  }

  /** Counts the chains of processes that are no longer registered. */
  async countAbandoned(): Promise<void> {
    const alive = await guarded((limits) => this.#registry.processes(limits));
    const heads = await guarded((limits) => this.#database.meta.find({ _id: HEADS }, limits).toArray());
    for (const { _id, sequence = 0, closed } of heads) {
      const processId = _id.slice(HEAD.length);
      if (alive.has(processId)) continue;
      const { counted } = await this.#reached(processId);
      if (closed !== true || counted < sequence) await this.#countFromLog(processId, Number.MAX_SAFE_INTEGER);
    }
  }

  async read(filter: UsageFilter, stepMs: number): Promise<readonly UsageRow[]> {
    await this.flush();
    const { startTime, endTime } = filter;
    const key_id =
      filter.ownerId === undefined ? (filter.keyId ?? '') : { $in: await this.#owned(filter.ownerId) };
    const time = { $gte: new Date(startTime), $lt: new Date(endTime) };
    const docs = await guarded((limits) =>
      this.#database.usage
        .find({ key_id, time }, { projection: { time: 1, outcome: 1, count: 1 }, ...limits })
        .toArray(),
    );
    const rows = new Map<string, UsageRow>();
    for (const { time, outcome, count } of docs) {
      const at = Math.floor(time.getTime() / stepMs) * stepMs;
      const name = `${at} ${outcome}`;
      rows.set(name, { time: at, outcome, count: (rows.get(name)?.count ?? 0) + Number(count) });
    }
    return [...rows.values()].sort((a, b) => a.time - b.time || (a.outcome < b.outcome ? -1 : 1));
  }

  async deleteBefore(time: number, limit: number): Promise<number> {
    const old = { time: { $lt: new Date(time) } };
    const ids = await guarded((limits) =>
      this.#database.usage
        .find(old, { projection: { _id: 1 }, ...limits })
        .limit(limit)
        .toArray(),
    );
    if (ids.length === 0) return 0;
    const filter = { _id: { $in: ids.map(({ _id }) => _id) } };
    return (await guarded((limits) => this.#database.usage.deleteMany(filter, { ...limits }))).deletedCount;
  }

  async #owned(owner_id: string): Promise<string[]> {
    const docs = await guarded((limits) =>
      this.#database.keys
        .find({ owner_id }, { projection: { _id: 1 }, ...limits })
        .limit(MAX_OWNED)
        .toArray(),
    );
    return docs.map(({ _id }) => _id);
  }

  /** The sequence up to which a chain is counted: retention must keep later events. */
  async reachOf(processId: string): Promise<number> {
    return (await this.#reached(processId)).counted;
  }

  async #countFromLog(processId: string, upTo: number): Promise<void> {
    for (;;) {
      const reached = await this.#reached(processId);
      const { counted, roundEnd } = reached;
      const counter = new UsageCounter();
      const last = await this.#readInto(
        counter,
        processId,
        counted,
        roundEnd > counted ? roundEnd : upTo,
        roundEnd > counted,
      );
      const end = roundEnd > counted ? roundEnd : last;
      if (end <= counted) return;
      const round = counter.round();
      // Another process counts this chain: read its progress again.
      if (roundEnd <= counted && !(await this.#begin(processId, reached, counted, end))) continue;
      if (round !== undefined) await this.#write(processId, { end, left: round.left });
      await this.#end(processId, counted, end);
    }
  }

  /** Counts the events in a range, all of them or one read; returns the last sequence. */
  async #readInto(
    counter: UsageCounter,
    process_id: string,
    after: number,
    upTo: number,
    all: boolean,
  ): Promise<number> {
    let last = after;
    for (;;) {
      const where = { process_id, sequence: { $gt: last, $lte: upTo } };
      const docs = await guarded((limits) =>
        this.#database.audit.find(where, limits).sort({ process_id: 1, sequence: 1 }).limit(SCAN).toArray(),
      );
      for (const doc of docs) counter.add(toRecord(doc), doc.sequence);
      last = docs.at(-1)?.sequence ?? last;
      if (!all || docs.length < SCAN) return last;
    }
  }

  async #reached(processId: string): Promise<Reached> {
    const doc = await guarded((limits) => this.#database.meta.findOne({ _id: `usage:${processId}` }, limits));
    return { counted: doc?.counted ?? 0, roundEnd: doc?.round_end ?? doc?.counted ?? 0 };
  }

  /** Begins a round from `from` on; false when the chain's progress is no longer `from`. */
  async #begin(
    processId: string,
    { counted, roundEnd }: Reached,
    from: number,
    end: number,
  ): Promise<boolean> {
    if (counted !== from || roundEnd !== from) return false;
    const _id = `usage:${processId}`;
    try {
      const { matchedCount, upsertedCount } = await guarded((limits) =>
        this.#database.meta.updateOne(
          from === 0 ? { _id, counted: 0, round_end: 0 } : { _id, counted: from, round_end: from },
          { $set: { round_end: end } },
          { upsert: from === 0, ...limits },
        ),
      );
      return matchedCount + upsertedCount > 0;
    } catch (error) {
      if (failureOf(causeOf(error)) === 'DUPLICATE') return false;
      throw error;
    }
  }

  async #end(processId: string, from: number, end: number): Promise<void> {
    const filter = { _id: `usage:${processId}`, counted: from, round_end: end };
    await guarded((limits) =>
      this.#database.meta.updateOne(filter, { $set: { counted: end } }, { ...limits }),
    );
  }

  async #write(processId: string, { end, left }: UsageRound): Promise<void> {
    for (let at = 0; at < left.length; at += SLICE) {
      const writes = left.slice(at, at + SLICE).map(({ keyId: key_id, hour, outcome, count }) => ({
        updateOne: {
          filter: { _id: `${processId}:${key_id}:${hour}:${outcome}`, reaches: { $lt: end } },
          update: {
            $inc: { count },
            $set: { reaches: end },
            $setOnInsert: { key_id, time: new Date(hour), outcome },
          },
          upsert: true,
        },
      }));
      try {
        await guarded((limits) => this.#database.usage.bulkWrite(writes, { ordered: false, ...limits }));
      } catch (error) {
        if (!onlyDuplicates(causeOf(error))) throw error;
        // These counts have reached the end of the round already.
      }
    }
  }
}

const causeOf = (error: unknown): unknown => (error as { facts?: { cause?: unknown } }).facts?.cause ?? error;

function onlyDuplicates(error: unknown): boolean {
  if (!(error instanceof MongoBulkWriteError) || error.result.getWriteConcernError() !== undefined)
    return false;
  return error.result
    .getWriteErrors()
    .every((one) => one.code === 11000 || /exclusion constraint|duplicate key/i.test(one.errmsg ?? ''));
}

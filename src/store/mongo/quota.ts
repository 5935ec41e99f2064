import type { Document } from 'mongodb';
import { ApiError } from '../../keys/errors.ts';
import type { QuotaLimiter, QuotaTaken } from '../../keys/ports/limits.ts';
import type { Counters, QuotaRequest } from '../../keys/quota.ts';
import { counterName, take } from '../../keys/quota.ts';
import { backoff } from '../retry.ts';
import type { MongoDatabase } from './database.ts';
import { failureOf, guarded, inTime, toApiError } from './errors.ts';
import type { LimitDoc } from './rows.ts';

/** The most takes in one update, and the most limits of them together: keeps the update small. */
const MAX_TAKES = 64;
const MAX_LIMITS = 256;
const MAX_WAITING = 10_000;
const MAX_ATTEMPTS = 3;
const SEND_MS = 2_500;
/** How long a document outlives its last window. */
const KEEP_MS = 86_400_000;
/** A request in flight cannot arrive after this time. */
const KEEP_OP_MS = 600_000;
const MAX_OPS = 256;

/** Identifies an update: the process that sends it (p) and its number there (n). */
interface Op {
  readonly id: string;
  readonly p: string;
  readonly n: number;
}

interface Waiting {
  readonly request: QuotaRequest;
  readonly resolve: (taken: QuotaTaken) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Quotas on MongoDB. One document holds all counters of a bucket; one pipeline update drops windows that have ended by
 * the server's clock, compares and takes, so counts are exact without a transaction. rate-limiter-flexible does not
 * suit: it increments first, so a refused cost would be consumed (docs/design/quotas.md).
 *
 * Takes on a bucket that arrive while an update is in flight share the next update and are admitted in order.
 */
export class MongoQuota implements QuotaLimiter {
  readonly #database: MongoDatabase;
  readonly #processId: string;
  readonly #waiting = new Map<string, Waiting[]>();
  #ops = 0;
  #waitingTakes = 0;

  constructor(database: MongoDatabase, processId: string) {
    this.#database = database;
    this.#processId = processId;
  }

  take(request: QuotaRequest): Promise<QuotaTaken> {
    if (this.#waitingTakes >= MAX_WAITING) {
      const text = 'too many calls are waiting for the quota store';
      return Promise.reject(new ApiError('QUOTA_OVERLOADED', text, { retryAfterMs: 1000 }));
    }
    this.#waitingTakes++;
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { request, resolve, reject };
      const queue = this.#waiting.get(request.bucket);
      if (queue !== undefined) queue.push(waiting);
      else {
        this.#waiting.set(request.bucket, [waiting]);
        void this.#serve(request.bucket);
      }
    });
  }

  async peek(request: QuotaRequest): Promise<QuotaTaken> {
    return guarded(async (limits) => {
      const pipeline = [{ $match: { _id: idOf(request.bucket) } }, { $project: { c: 1, now: '$$NOW' } }];
      const [doc] = await this.#database.limits
        .aggregate<Pick<LimitDoc, 'c'> & { now: Date }>(pipeline, limits)
        .toArray();
      // Without a document nothing was counted, so the time does not matter.
      return doc === undefined ? take(request, {}, 0) : take(request, toCounters(doc.c), doc.now.getTime());
    });
  }

  /** Serves a bucket until no take is waiting. */
  async #serve(bucket: string): Promise<void> {
    for (;;) {
      // Other takes of this turn of the event loop join the first update.
      await new Promise(setImmediate);
      const queue = this.#waiting.get(bucket) ?? [];
      if (queue.length === 0) {
        this.#waiting.delete(bucket);
        return;
      }
      const batch = queue.splice(0, batchSize(queue));
      try {
        const results = await this.#takeAll(
          bucket,
          batch.map(({ request }) => request),
        );
        for (const [i, { resolve }] of batch.entries()) resolve(results[i] as QuotaTaken);
      } catch (error) {
        const failure = toApiError(error);
        for (const { reject } of batch) reject(failure);
      }
      this.#waitingTakes -= batch.length;
    }
  }

  async #takeAll(bucket: string, requests: readonly QuotaRequest[]): Promise<QuotaTaken[]> {
    const n = this.#ops++;
    const op = { id: `${this.#processId}-${n}`, p: this.#processId, n };
    const found = await this.#apply(bucket, op, pipelineFor(bucket, op, requests));
    // Repeats the server's arithmetic on the same counters to get the result of each take.
    let counters = toCounters(found.before);
    const now = found.now.getTime();
    return requests.map((request) => {
      const taken = take(request, counters, now);
      counters = taken.counters;
      return taken;
    });
  }

  /** Applies the update exactly once, however often it is sent, and returns the counters before it. */
  async #apply(bucket: string, { id: op, p, n }: Op, pipeline: Document[]) {
    // A process has one update per bucket in flight and the document keeps its last op: an older op that is late fails.
    const filter = { _id: idOf(bucket), ops: { $not: { $elemMatch: { p, n: { $gte: n } } } } };
    for (let attempt = 1; ; attempt++) {
      try {
        const options = { upsert: true, returnDocument: 'after', projection: { ops: 1 } } as const;
        const doc = await inTime(
          (limits) => this.#database.limits.findOneAndUpdate(filter, pipeline, { ...options, ...limits }),
          SEND_MS,
        );
        const mine = doc?.ops?.find(({ id }) => id === op);
        if (mine !== undefined) return mine;
      } catch (error) {
        // DUPLICATE: the first take of a bucket lost a race, or an earlier attempt of this update was applied.
        if (failureOf(error) === 'OTHER' || attempt >= MAX_ATTEMPTS) throw error;
        const doc =
          failureOf(error) === 'DUPLICATE'
            ? await inTime((limits) => this.#database.limits.findOne({ _id: idOf(bucket) }, limits), SEND_MS)
            : null;
        const mine = doc?.ops?.find(({ id }) => id === op);
        if (mine !== undefined) return mine;
      }
      if (attempt >= MAX_ATTEMPTS)
        throw new ApiError('STORE_UNAVAILABLE', 'the quota store gave no answer', { retryAfterMs: 1000 });
      await backoff(attempt, 20, 500);
    }
  }
}

function idOf(bucket: string): string {
  return `quota:${bucket}`;
}

function toCounters(stored: LimitDoc['c']): Counters {
  return Object.fromEntries(
    Object.entries(stored ?? {}).map(([name, { used, end }]) => [name, { used, end: end.getTime() }]),
  );
}

function batchSize(queue: readonly Waiting[]): number {
  let limits = 0;
  let size = 0;
  for (const { request } of queue) {
    limits += request.limits.length;
    if (size >= MAX_TAKES || (size > 0 && limits > MAX_LIMITS)) break;
    size++;
  }
  return size;
}

/** The update: drops ended windows, opens the needed ones, notes the counters found, then takes one by one. */
function pipelineFor(bucket: string, op: Op, requests: readonly QuotaRequest[]): Document[] {
  const windows = new Map(
    requests.flatMap(({ limits }) => limits).map((limit) => [counterName(limit), limit.windowMs]),
  );
  const counting = { $and: [{ $gt: ['$$this.v.end', '$$NOW'] }, { $gt: ['$$this.v.used', 0] }] };
  const stored = { $objectToArray: { $ifNull: ['$c', {}] } };
  const opened = [...windows].map(([name, windowMs]) => [
    `c.${name}`,
    {
      used: { $ifNull: [`$c.${name}.used`, 0] },
      // Never later than a whole window from now: the server's clock may have been set back.
      end: { $min: [`$c.${name}.end`, { $add: ['$$NOW', windowMs] }] },
    },
  ]);
  const others = {
    $and: [{ $ne: ['$$this.p', op.p] }, { $gt: ['$$this.now', { $subtract: ['$$NOW', KEEP_OP_MS] }] }],
  };
  const kept = { $filter: { input: { $ifNull: ['$ops', []] }, cond: others } };
  const longest = Math.max(...windows.values());
  return [
    { $set: { key: idOf(bucket), c: { $arrayToObject: { $filter: { input: stored, cond: counting } } } } },
    { $set: Object.fromEntries(opened) },
    {
      $set: {
        ops: {
          $slice: [{ $concatArrays: [kept, [{ ...op, now: '$$NOW', before: '$c' }]] }, -MAX_OPS],
        },
        expire: { $max: ['$expire', { $add: ['$$NOW', longest + KEEP_MS] }] },
      },
    },
    ...requests.flatMap(takeStages),
    { $unset: 'admitted' },
  ];
}

function takeStages({ limits, cost }: QuotaRequest): Document[] {
  const used = (name: string) => `$c.${name}.used`;
  const fits = limits.map((limit) => ({ $lte: [{ $add: [used(counterName(limit)), cost] }, limit.limit] }));
  const taken = limits
    .map(counterName)
    .map((name) => [`c.${name}.used`, { $add: [used(name), { $cond: ['$admitted', cost, 0] }] }]);
  return [{ $set: { admitted: { $and: fits } } }, { $set: Object.fromEntries(taken) }];
}

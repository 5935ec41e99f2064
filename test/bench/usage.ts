/** How long does the console wait, and how much do counts of decisions take? */
import { statSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { DatabaseSync } from 'node:sqlite';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { MongoClient } from 'mongodb';
import { UsageStep } from '../../gen/apikey/v1/admin_pb.ts';
import type { Clients } from '../support/server.ts';
import { addKeys } from './many-keys.ts';
import { type Answered, type Bench, median, table } from './measure.ts';
import { ADMIN, ALL_ON, apikeyd } from './servers.ts';

const KEYS = 100_000;
const HOUR_MS = 3_600_000;
const DAYS = 400;
const OUTCOMES = ['DECISION_VALID', 'DECISION_RATE_LIMITED', 'DECISION_INSUFFICIENT_SCOPE'];
const ROUNDS = 15;

export async function usage({ folder, mongoUri }: Bench): Promise<Answered> {
  const path = `${folder}/usage.db`;
  const setup = {
    ...ALL_ON,
    folder,
    storeUrl: `sqlite:${path}`,
    settings: { ADMIN_BOOTSTRAP_KEY: ADMIN },
  };
  await (await apikeyd({ ...setup, name: 'usage, fill' })).stop();
  addKeys(path, KEYS);
  const endTime = Math.floor(Date.now() / HOUR_MS) * HOUR_MS;
  const keyId = 'uid-apikey-0000000000000007';
  const bytesPerRow = addCounts(path, [keyId, ''], endTime);
  const server = await apikeyd({ ...setup, name: 'usage' });
  const rows = await tookOf(questions(server.clients, keyId, endTime));
  await server.stop();
  const onMongo = mongoUri === '' ? [] : await askMongo({ folder, mongoUri }, keyId, endTime);
  return {
    facts: { usageBytesPerRow: bytesPerRow },
    text: `## Lists and counts

Embedded store, ${KEYS} keys; one key was used in every hour of ${DAYS} days with ${OUTCOMES.length} decisions, which makes ${30 * 24 * OUTCOMES.length} rows a
month of ${bytesPerRow.toFixed(0)} bytes each, index included (a key used for an hour a day: ${30 * OUTCOMES.length} rows). Milliseconds over gRPC, medians of ${ROUNDS}.

${table(['asked', 'ms'], rows)}
${onMongo.length === 0 ? '' : `\nThe same counts on MongoDB:\n\n${table(['asked', 'ms'], onMongo)}\n`}`.trimEnd(),
  };
}

type Questions = Record<string, () => Promise<unknown>>;

function questions({ admin }: Clients, keyId: string, endTime: number): Questions {
  return {
    [`first page of ${KEYS} keys`]: () => admin.listKeys({ pageSize: 50 }),
    'first page of those of an owner': () => admin.listKeys({ pageSize: 50, ownerId: 'bench' }),
    'first page of those whose name or id begins so': () =>
      admin.listKeys({ pageSize: 50, query: 'uid-apikey-00000000000001' }),
    ...usageQuestions({ admin }, keyId, endTime),
  };
}

function usageQuestions({ admin }: Pick<Clients, 'admin'>, keyId: string, endTime: number): Questions {
  const year = { startTime: timestampFromMs(endTime - 365 * 24 * HOUR_MS), step: UsageStep.DAY };
  const month = { startTime: timestampFromMs(endTime - 30 * 24 * HOUR_MS), step: UsageStep.HOUR };
  return {
    'GetUsage: a year of a busy key, by day': () => admin.getUsage({ ...year, keyId }),
    'GetUsage: a year of all keys, by day': () => admin.getUsage(year),
    'GetUsage: 30 days of a busy key, by hour': () => admin.getUsage({ ...month, keyId }),
  };
}

async function tookOf(asked: Questions): Promise<[string, string][]> {
  const rows: [string, string][] = [];
  for (const [name, ask] of Object.entries(asked)) {
    const took: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const begun = performance.now();
      await ask();
      took.push(performance.now() - begun);
    }
    rows.push([name, median(took).toFixed(1)]);
  }
  return rows;
}

async function askMongo(
  { folder, mongoUri }: Pick<Bench, 'folder' | 'mongoUri'>,
  keyId: string,
  endTime: number,
): Promise<[string, string][]> {
  const storeUrl = Object.assign(new URL(mongoUri), {
    pathname: `/apikeyd_bench_usage_${process.pid}`,
  }).toString();
  const server = await apikeyd({ ...ALL_ON, folder, storeUrl, name: 'usage on MongoDB' });
  const client = await new MongoClient(storeUrl).connect();
  for (const key_id of [keyId, '']) {
    const docs = countsOf(endTime).map(({ time, outcome, count }) => ({
      _id: `bench:${key_id}:${time}:${outcome}` as never,
      key_id,
      time: new Date(time),
      outcome,
      count,
      reaches: 1,
    }));
    // FerretDB 2.7 takes 25 000 documents at most in a call.
    for (let at = 0; at < docs.length; at += 10_000)
      await client
        .db()
        .collection('api_key_usage')
        .insertMany(docs.slice(at, at + 10_000));
  }
  const rows = await tookOf(usageQuestions(server.clients, keyId, endTime));
  await server.stop();
  await client.db().dropDatabase();
  await client.close();
  return rows;
}

/** The counts of a key that is used in every hour. */
function countsOf(endTime: number) {
  return Array.from({ length: DAYS * 24 }, (_, i) => i + 1).flatMap((hour) =>
    OUTCOMES.map((outcome) => ({ time: endTime - hour * HOUR_MS, outcome, count: 1_000 + hour })),
  );
}

/** Bytes of the file for each row. */
function addCounts(path: string, keyIds: readonly string[], endTime: number): number {
  const before = statSync(path).size;
  const db = new DatabaseSync(path);
  db.exec('BEGIN');
  const insert = db.prepare('INSERT INTO api_key_usage VALUES (?, ?, ?, ?, ?)');
  let rows = 0;
  for (const keyId of keyIds)
    for (const { time, outcome, count } of countsOf(endTime).reverse()) {
      insert.run(keyId, time, outcome, count, 1);
      rows++;
    }
  db.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)');
  db.close();
  return (statSync(path).size - before) / rows;
}

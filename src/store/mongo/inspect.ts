import type { Finding } from '../store.ts';
import { UnfitTexts } from '../unfit-texts.ts';
import { MongoDatabase } from './database.ts';
import { INDEXES } from './migrations.ts';

const SKEW_MS = 1_000;

/** Finds problems that would stop a server from using this database, without changing it. @throws StartError */
export async function inspectMongo(url: string): Promise<Finding[]> {
  const database = await MongoDatabase.connect(url);
  try {
    return [
      { what: 'store', ok: true, text: 'answers' },
      await clockOf(database),
      ...(await indexesOf(database)),
      await textsOf(database),
    ];
  } finally {
    await database.close();
  }
}

async function clockOf({ client }: MongoDatabase): Promise<Finding> {
  const before = Date.now();
  const { localTime } = await client.db().command({ hello: 1 });
  const ahead = Math.round((before + Date.now()) / 2 - (localTime as Date).getTime());
  const ok = Math.abs(ahead) <= SKEW_MS;
  return {
    what: 'clock',
    ok,
    text: ok ? `${ahead} ms from the store's` : `${ahead} ms ahead of the store's: set it right`,
  };
}

async function indexesOf(database: MongoDatabase): Promise<Finding[]> {
  const schema = await database.meta.findOne({ _id: 'schema' });
  if (schema === null)
    return [{ what: 'indexes', ok: true, text: 'not made yet: the first start makes them' }];
  const findings: Finding[] = [];
  for (const [name, expected] of Object.entries(INDEXES)) {
    const collection = database[name as keyof typeof INDEXES];
    const there = new Map((await collection.indexes()).map((index) => [index.name, index]));
    for (const index of expected) {
      const found = there.get(index.name);
      const what = `index ${collection.collectionName}.${index.name}`;
      if (found === undefined)
        findings.push({
          what,
          ok: false,
          text: 'missing: make it again, or queries scan and limits over-admit',
        });
      else if ('unique' in index && found.unique !== true)
        findings.push({ what, ok: false, text: 'not unique: counts and secrets can be doubled' });
    }
  }
  return findings.length > 0 ? findings : [{ what: 'indexes', ok: true, text: 'all there' }];
}

async function textsOf({ keys }: MongoDatabase): Promise<Finding> {
  const found = new UnfitTexts();
  const projection = {
    name: 1,
    owner_id: 1,
    rate_limit_bucket: 1,
    revoke_note: 1,
    request_id: 1,
    metadata: 1,
  } as const;
  for await (const doc of keys.find({}, { projection })) {
    const { name, owner_id, rate_limit_bucket, revoke_note = '', request_id = '' } = doc;
    const metadata = Object.fromEntries(doc.metadata.map((pair) => [pair.name, pair.value]));
    found.add([doc._id, { name, owner_id, rate_limit_bucket, revoke_note, request_id, metadata }]);
  }
  return found.finding;
}

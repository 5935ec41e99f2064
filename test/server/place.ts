import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MongoClient } from 'mongodb';
import { inject } from 'vitest';
import { TestClock } from '../support/clock.ts';
import { freshDatabase, type StoreKind, startServer, type TestServer } from '../support/server.ts';

/** A store whose server is started and stopped, and which can be set back to an earlier state. */
export class Place {
  readonly #kind: StoreKind;
  readonly database: ReturnType<typeof freshDatabase>;
  readonly #log: ReturnType<typeof freshDatabase>;
  readonly clock = new TestClock(Date.now());
  #server: TestServer | undefined;

  constructor(kind: StoreKind) {
    this.#kind = kind;
    this.database = freshDatabase(kind, inject('mongoUri'));
    this.#log = freshDatabase(kind, inject('mongoUri'));
  }

  get logFile(): string {
    return join(this.database.folder, 'apikeyd.db.revocations');
  }

  async start(settings: Record<string, string> = {}): Promise<TestServer> {
    const log: Record<string, string> = this.#kind === 'mongo' ? { REVOCATION_LOG: this.#log.url } : {};
    const { url, folder } = this.database;
    this.#server = await startServer(url, folder, { ...log, CONSOLE: 'false', ...settings }, this.clock);
    return this.#server;
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
    this.#server = undefined;
  }

  /** As it is while no server runs; answers how to set it back. */
  async copy(): Promise<() => Promise<void>> {
    if (this.#kind === 'mongo') return copyOfMongo(this.database.url);
    const { folder } = this.database;
    const ofStore = (name: string) => /^apikeyd\.db(-wal|-shm)?$/.test(name);
    const kept = join(folder, 'kept');
    for (const name of readdirSync(folder).filter(ofStore)) cpSync(join(folder, name), join(kept, name));
    return async () => {
      for (const name of readdirSync(folder).filter(ofStore)) rmSync(join(folder, name));
      cpSync(kept, folder, { recursive: true });
    };
  }

  /** The same of the log. */
  async copyLog(): Promise<() => Promise<void>> {
    if (this.#kind === 'mongo') return copyOfMongo(this.#log.url);
    const bytes = readFileSync(this.logFile);
    return async () => writeFileSync(this.logFile, bytes);
  }

  async drop(): Promise<void> {
    await this.stop();
    await this.database.drop();
    await this.#log.drop();
  }
}

async function copyOfMongo(url: string): Promise<() => Promise<void>> {
  const within = async <T>(work: (client: MongoClient) => Promise<T>) => {
    const client = await new MongoClient(url).connect();
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  };
  const all = await within(async (client) => {
    const collections = await client.db().collections();
    return Promise.all(
      collections.map(async (each) => ({ name: each.collectionName, docs: await each.find().toArray() })),
    );
  });
  return () =>
    within(async (client) => {
      for (const each of await client.db().collections()) await each.deleteMany({});
      for (const { name, docs } of all)
        if (docs.length > 0) await client.db().collection(name).insertMany(docs);
    });
}

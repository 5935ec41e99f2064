import type { Chain } from '../../audit/chain.ts';
import type { RetiredHash } from '../../keys/narrowing.ts';
import type { RevocationRecord } from '../../keys/ports/revocations.ts';
import { RETIRED_MS } from '../../keys/rotation.ts';
import { type LogReach, notNoted, type RevocationLog } from '../revocation-log.ts';
import { StartError, type Warn } from '../store.ts';
import { MongoDatabase } from './database.ts';
import { failureOf, guarded } from './errors.ts';
import type { RevocationDoc } from './rows.ts';

const LOG = 'log';
const RETIRED = 'retired:';
const KEYS = { revision: { $exists: true } };

/** The log in another cluster: a document for each narrowed or rotated key, and one for each retired hash. */
export class MongoRevocationLog implements RevocationLog {
  readonly #database: MongoDatabase;
  readonly #chain: Chain;
  readonly #written: (ok: boolean) => void;
  readonly #warn: Warn;
  /** Records that could not be written yet, the newest of each key. */
  readonly #owed = new Map<string, RevocationRecord>();

  private constructor(database: MongoDatabase, chain: Chain, warn: Warn, written: (ok: boolean) => void) {
    this.#database = database;
    this.#chain = chain;
    this.#warn = warn;
    this.#written = written;
  }

  /** @throws StartError */
  static async open(
    url: string,
    chain: Chain,
    warn: Warn,
    written: (ok: boolean) => void,
  ): Promise<MongoRevocationLog> {
    const database = await MongoDatabase.connect(url, 'REVOCATION_LOG');
    try {
      await database.revocations.createIndexes([
        { key: { revision: 1 }, name: 'by_revision', sparse: true },
        { key: { key_id: 1 }, name: 'by_key', sparse: true },
        { key: { retire_time: 1 }, name: 'retire_time', expireAfterSeconds: RETIRED_MS / 1000 },
      ]);
      return new MongoRevocationLog(database, chain, warn, written);
    } catch (error) {
      await database.close();
      const text = `REVOCATION_LOG: the log cannot be prepared: ${(error as Error).message}`;
      throw new StartError(69, text, error);
    }
  }

  async reach(): Promise<LogReach | undefined> {
    const { revocations } = this.#database;
    const log = await guarded((limits) => revocations.findOne({ _id: LOG }, limits));
    if (log === null) return undefined;
    const { begins = 0, covered = 0, mac, covered_mac } = log;
    if (mac !== this.#mac('begins', begins) || covered_mac !== this.#mac('covered', covered))
      throw notWritten(LOG);
    const newest = await guarded((limits) =>
      revocations.findOne(KEYS, { sort: { revision: -1 }, ...limits }),
    );
    return { begins, covered, highest: Math.max(covered, newest?.revision ?? 0) };
  }

  async begin(revision: number): Promise<void> {
    const fields = { begins: revision, mac: this.#mac('begins', revision) };
    const covered = { covered: revision, covered_mac: this.#mac('covered', revision) };
    const update = { $setOnInsert: { ...fields, ...covered } };
    await guarded((limits) =>
      this.#database.revocations.updateOne({ _id: LOG }, update, { upsert: true, ...limits }),
    );
  }

  async append(record: RevocationRecord): Promise<void> {
    try {
      await this.#write(record);
      this.#written(true);
    } catch (error) {
      this.#owe(record);
      this.#warn('REVOCATION_LOG cannot be written', error);
      this.#written(false);
      throw notNoted(error);
    }
  }

  async settled(): Promise<void> {
    for (const record of [...this.#owed.values()]) {
      await this.append(record);
      if (this.#owed.get(record.keyId) === record) this.#owed.delete(record.keyId);
    }
  }

  async cover(revision: number): Promise<void> {
    const older = { _id: LOG, covered: { $lt: revision } };
    const update = { $set: { covered: revision, covered_mac: this.#mac('covered', revision) } };
    await guarded((limits) => this.#database.revocations.updateOne(older, update, { ...limits }));
  }

  async since(revision: number): Promise<ReadonlyMap<string, RevocationRecord>> {
    const found = await this.#find({ revision: { $gt: revision } });
    const retired = new Map<string, RetiredHash[]>();
    for await (const doc of this.#database.revocations.find({ key_id: { $in: [...found.keys()] } })) {
      const { _id, key_id = '', retire_time = new Date(0), mac } = doc;
      if (mac !== this.#mac(_id, key_id, retire_time.getTime())) throw notWritten(_id);
      const all = retired.get(key_id) ?? [];
      all.push({ hash: _id.slice(RETIRED.length), time: retire_time.getTime() });
      retired.set(key_id, all);
    }
    for (const [keyId, record] of found) found.set(keyId, { ...record, retired: retired.get(keyId) ?? [] });
    return found;
  }

  async revisionsOf(keyIds: ReadonlySet<string>): Promise<ReadonlyMap<string, number>> {
    const found = await this.#find({ _id: { $in: [...keyIds] } });
    return new Map([...found].map(([keyId, { revision }]) => [keyId, revision]));
  }

  async places(): Promise<ReadonlyMap<string, number>> {
    const places = new Map<string, number>();
    for (const { chain } of (await this.#find(KEYS)).values())
      if (chain !== undefined)
        places.set(chain.processId, Math.max(chain.sequence, places.get(chain.processId) ?? 0));
    return places;
  }

  close(): Promise<void> {
    return this.#database.close();
  }

  async #find(where: object): Promise<Map<string, RevocationRecord>> {
    const found = new Map<string, RevocationRecord>();
    for await (const { _id, revision = 0, text = '', mac } of this.#database.revocations.find(where)) {
      if (mac !== this.#mac(_id, revision, text)) throw notWritten(_id);
      found.set(_id, { ...(JSON.parse(text) as RevocationRecord), keyId: _id, revision });
    }
    return found;
  }

  #owe(record: RevocationRecord): void {
    const before = this.#owed.get(record.keyId);
    if (before === record) return;
    const newer = before !== undefined && before.revision > record.revision ? before : record;
    this.#owed.set(record.keyId, { ...newer, retired: [...(before?.retired ?? []), ...record.retired] });
  }

  /** Writes the hashes first: with the record alone, a retired secret would be NOT_FOUND. */
  async #write({ retired, ...record }: RevocationRecord): Promise<void> {
    const { keyId, revision } = record;
    const { revocations } = this.#database;
    if (retired.length > 0) {
      const writes = retired.map(({ hash, time }) => {
        const fields = { key_id: keyId, retire_time: new Date(time) };
        const $set = { ...fields, mac: this.#mac(RETIRED + hash, keyId, time) };
        return { updateOne: { filter: { _id: RETIRED + hash }, update: { $set }, upsert: true } };
      });
      await guarded((limits) => revocations.bulkWrite(writes, { ordered: false, ...limits }));
    }
    const text = JSON.stringify(record);
    const $set = { revision, text, mac: this.#mac(keyId, revision, text) } satisfies Partial<RevocationDoc>;
    const older = { _id: keyId, revision: { $lt: revision } };
    try {
      await guarded((limits) => revocations.updateOne(older, { $set }, { upsert: true, ...limits }));
    } catch (error) {
      // A newer record is already there.
      const cause = (error as Error).cause ?? error;
      if (failureOf(cause) !== 'DUPLICATE') throw error;
    }
  }

  #mac(...parts: (string | number)[]): string {
    return this.#chain.mac(['revocation', ...parts]);
  }
}

function notWritten(id: string): StartError {
  return new StartError(
    69,
    `REVOCATION_LOG: the document ${id} is not what was written there, or was with another chain key; docs/runbooks.md says what to do`,
  );
}

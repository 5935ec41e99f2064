import { type Collection, type Db, type Filter, MongoClient, type Sort } from 'mongodb';
import { StartError } from '../store.ts';
import { guarded, inTime } from './errors.ts';
import type {
  AlertDoc,
  AnomalyDoc,
  AuditDoc,
  KeyDoc,
  LimitDoc,
  MetaDoc,
  RemoteKeyDoc,
  RetiredDoc,
  RevocationDoc,
  RotationDoc,
  UsageDoc,
} from './rows.ts';

const SERVER_SELECTION_MS = 3_000;
const SOCKET_MS = 5_000;
const POOL_WAIT_MS = 3_000;
const MAX_POOL = 50;

/**
 * The collections, with time limits on every operation. The driver's monitor can hang for ever on a connection that was
 * reset while it was opened; then no call finds the server again, and only a new client helps.
 */
export class MongoDatabase {
  readonly #url: string;
  #client: MongoClient;
  #db: Db;
  #reconnecting = false;

  private constructor(url: string, client: MongoClient) {
    this.#url = url;
    this.#client = client;
    this.#db = client.db();
  }

  /**
   * @param setting the name of the setting with the URL
   * @param socketMs the time limit of any single command
   * @throws StartError when the URL is wrong or no server answers
   */
  static async connect(url: string, setting = 'STORE_URL', socketMs = SOCKET_MS): Promise<MongoDatabase> {
    const client = clientOf(url, setting, socketMs);
    try {
      await reach(client);
    } catch (error) {
      throw new StartError(69, `${setting}: no MongoDB server answers there`, error);
    }
    return new MongoDatabase(url, client);
  }

  get client(): MongoClient {
    return this.#client;
  }

  get keys(): Collection<KeyDoc> {
    return this.#db.collection('api_keys');
  }

  get audit(): Collection<AuditDoc> {
    return this.#db.collection('api_key_audit_log');
  }

  get limits(): Collection<LimitDoc> {
    return this.#db.collection('api_key_limits');
  }

  get meta(): Collection<MetaDoc> {
    return this.#db.collection('api_key_meta');
  }

  get retired(): Collection<RetiredDoc> {
    return this.#db.collection('api_key_retired_secrets');
  }

  get rotations(): Collection<RotationDoc> {
    return this.#db.collection('api_key_rotations');
  }

  get anomalies(): Collection<AnomalyDoc> {
    return this.#db.collection('api_key_anomalies');
  }

  get alerts(): Collection<AlertDoc> {
    return this.#db.collection('api_key_alerts');
  }

  get usage(): Collection<UsageDoc> {
    return this.#db.collection('api_key_usage');
  }

  get giteaTokens(): Collection<RemoteKeyDoc> {
    return this.#db.collection('gitea_tokens');
  }

  get n8nApiKeys(): Collection<RemoteKeyDoc> {
    return this.#db.collection('n8n_api_keys');
  }

  get revocations(): Collection<RevocationDoc> {
    return this.#db.collection('api_key_revocations');
  }

  /** Replaces a client that has found no server for long, if a new one reaches the server. */
  async reconnect(): Promise<void> {
    if (this.#reconnecting) return;
    this.#reconnecting = true;
    const fresh = clientOf(this.#url);
    try {
      await reach(fresh);
    } finally {
      this.#reconnecting = false;
    }
    const old = this.#client;
    this.#client = fresh;
    this.#db = fresh.db();
    // Calls in flight on the old client end by their own time limits; its hung parts are not awaited.
    void old.close().catch(() => {});
  }

  close(): Promise<void> {
    return this.#client.close();
  }
}

/** Deletes up to `limit` documents that match, in the given order if there is one; returns how many. */
export function deleteSome<T extends { _id: string }>(
  collection: Collection<T>,
  filter: Filter<T>,
  limit: number,
  order: Sort = {},
): Promise<number> {
  return guarded(async (limits) => {
    const found = collection.find(filter, { projection: { _id: 1 }, ...limits });
    const ids = (await found.sort(order).limit(limit).toArray()).map(({ _id }) => _id);
    if (ids.length === 0) return 0;
    return (await collection.deleteMany({ _id: { $in: ids } } as Filter<T>, { ...limits })).deletedCount;
  });
}

function clientOf(url: string, setting = 'STORE_URL', socketMs = SOCKET_MS): MongoClient {
  try {
    return new MongoClient(withDatabase(url), {
      appName: 'apikeyd',
      // No acknowledgement before a majority has the write on disk.
      writeConcern: { w: 'majority', journal: true },
      readPreference: 'primary',
      serverSelectionTimeoutMS: SERVER_SELECTION_MS,
      connectTimeoutMS: SERVER_SELECTION_MS,
      socketTimeoutMS: socketMs,
      waitQueueTimeoutMS: POOL_WAIT_MS,
      maxPoolSize: MAX_POOL,
      ignoreUndefined: true,
    });
  } catch (error) {
    throw new StartError(78, `${setting}: not a MongoDB connection string`, error);
  }
}

/** Connects; closes the client on failure. */
async function reach(client: MongoClient): Promise<void> {
  try {
    await inTime(() => client.connect());
    await inTime((limits) => client.db().command({ ping: 1 }, { ...limits }));
  } catch (error) {
    void client.close().catch(() => {});
    throw error;
  }
}

/** Without a database name in the URL, `apikeyd` is used and not the driver's default `test`. */
function withDatabase(url: string): string {
  const [, head = '', path = '', options = ''] = /^([^/]+\/\/[^/?]+)(\/[^?]*)?(\?.*)?$/.exec(url) ?? [];
  if (head === '') return url;
  // Without a database name the driver authenticates against `admin`: the added name must not change that.
  const named = path.length > 1;
  const source = named || !head.includes('@') || options.includes('authSource=') ? '' : 'authSource=admin';
  const joined = source === '' ? options : options === '' ? `?${source}` : `${options}&${source}`;
  return `${head}${named ? path : '/apikeyd'}${joined}`;
}

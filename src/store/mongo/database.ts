import { type Collection, type Db, MongoClient } from 'mongodb';
import { StartError } from '../store.ts';
import type { AuditDoc, KeyDoc, LimitDoc, MetaDoc } from './rows.ts';

const SERVER_SELECTION_MS = 3_000;
const SOCKET_MS = 5_000;
const POOL_WAIT_MS = 3_000;
const MAX_POOL = 50;

/** The collections, with every operation's limits set. */
export class MongoDatabase {
  readonly client: MongoClient;
  readonly db: Db;
  readonly keys: Collection<KeyDoc>;
  readonly audit: Collection<AuditDoc>;
  readonly limits: Collection<LimitDoc>;
  readonly meta: Collection<MetaDoc>;

  private constructor(client: MongoClient) {
    this.client = client;
    this.db = client.db();
    this.keys = this.db.collection('api_keys');
    this.audit = this.db.collection('api_key_audit_log');
    this.limits = this.db.collection('api_key_limits');
    this.meta = this.db.collection('api_key_meta');
  }

  /** @throws StartError when the URL is wrong or nobody answers. */
  static async connect(url: string): Promise<MongoDatabase> {
    let client: MongoClient;
    try {
      client = new MongoClient(withDatabase(url), {
        appName: 'apikeyd',
        // An answer rests on what a majority has on disk.
        writeConcern: { w: 'majority', journal: true },
        readPreference: 'primary',
        serverSelectionTimeoutMS: SERVER_SELECTION_MS,
        connectTimeoutMS: SERVER_SELECTION_MS,
        socketTimeoutMS: SOCKET_MS,
        waitQueueTimeoutMS: POOL_WAIT_MS,
        maxPoolSize: MAX_POOL,
        ignoreUndefined: true,
      });
    } catch (error) {
      throw new StartError(78, 'STORE_URL: not a MongoDB connection string', error);
    }
    try {
      await client.connect();
      await client.db().command({ ping: 1 });
    } catch (error) {
      await client.close();
      throw new StartError(69, 'STORE_URL: no MongoDB server answers there', error);
    }
    return new MongoDatabase(client);
  }

  close(): Promise<void> {
    return this.client.close();
  }
}

/** A URL without a database name means `apikeyd`, not the driver's `test`. */
function withDatabase(url: string): string {
  const [, head = '', path = '', options = ''] = /^([^/]+\/\/[^/?]+)(\/[^?]*)?(\?.*)?$/.exec(url) ?? [];
  if (head === '') return url;
  // Credentials without an authSource were made in `admin`, as without a database name.
  const named = path.length > 1;
  const source = named || !head.includes('@') || options.includes('authSource=') ? '' : 'authSource=admin';
  const joined = source === '' ? options : options === '' ? `?${source}` : `${options}&${source}`;
  return `${head}${named ? path : '/apikeyd'}${joined}`;
}

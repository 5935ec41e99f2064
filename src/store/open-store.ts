import { measured } from './measured-store.ts';
import { NetworkLockout } from './network-lockout.ts';
import { RevocationFile, type RevocationFileParts } from './revocation-file.ts';
import type { RevocationLog } from './revocation-log.ts';
import type { Finding, Store, StoreOptions, StoreReplacement } from './store.ts';
import { StartError } from './store.ts';

const MONGODB = /^mongodb(\+srv)?:\/\//;

/** Opens the store that STORE_URL names, and loads only its adapter. */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { observer, clock } = options;
  const opened = await open(options);
  const store = observer === undefined ? opened : { ...opened, ...measured(opened, observer, clock) };
  return { ...store, lockout: new NetworkLockout(store.lockout) };
}

async function open(options: StoreOptions): Promise<Store> {
  if (options.url.startsWith('sqlite:')) return (await import('./sqlite/open.ts')).openSqliteStore(options);
  if (MONGODB.test(options.url)) return (await import('./mongo/open.ts')).openMongoStore(options);
  throw notKnown();
}

/** Opens the log that REVOCATION_LOG names: a file or a MongoDB. @throws StartError */
export async function openRevocationLog(options: RevocationFileParts): Promise<RevocationLog> {
  const { file, chain, warn, written } = options;
  if (!MONGODB.test(file)) return RevocationFile.open(options);
  return (await import('./mongo/revocation-log.ts')).MongoRevocationLog.open(file, chain, warn, written);
}

/** Prepares to replace the file of an embedded store. @throws StartError where a process uses the store */
export async function openReplacement(url: string): Promise<StoreReplacement> {
  return (await import('./sqlite/replacement.ts')).SqliteReplacement.open(url);
}

/** Whether a setting is the URL of a MongoDB. */
export const isMongodb = (url: string): boolean => MONGODB.test(url);

/** Inspects the store without changing it. @throws StartError when the store cannot be opened. */
export async function inspectStore(url: string): Promise<Finding[]> {
  if (url.startsWith('sqlite:')) return (await import('./sqlite/inspect.ts')).inspectSqlite(url);
  if (MONGODB.test(url)) return (await import('./mongo/inspect.ts')).inspectMongo(url);
  throw notKnown();
}

function notKnown(): StartError {
  return new StartError(78, 'STORE_URL: must begin with sqlite:, mongodb:// or mongodb+srv://');
}

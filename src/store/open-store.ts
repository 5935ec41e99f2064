import type { Store, StoreOptions } from './store.ts';
import { StartError } from './store.ts';

/** Opens the store that STORE_URL names. Only the adapter that is used is loaded. */
export async function openStore(options: StoreOptions): Promise<Store> {
  if (options.url.startsWith('sqlite:')) return (await import('./sqlite/open.ts')).openSqliteStore(options);
  if (/^mongodb(\+srv)?:\/\//.test(options.url))
    return (await import('./mongo/open.ts')).openMongoStore(options);
  throw new StartError(78, 'STORE_URL: must begin with sqlite:, mongodb:// or mongodb+srv://');
}

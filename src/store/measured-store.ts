import type { Clock } from '../keys/ports/clock.ts';
import type { Store, StoreObserver, StoreOperation } from './store.ts';

/** Wraps the ports of a store: an observer receives the duration of each operation that had to be waited for. */
export function measured(
  { keys, quota, lockout, ping }: Store,
  observer: StoreObserver,
  clock: Clock,
): Pick<Store, 'keys' | 'quota' | 'lockout' | 'ping'> {
  /** A result that is not a promise was not waited for and is not measured. */
  const timed = <T>(operation: StoreOperation, begun: number, result: T): T => {
    if (result instanceof Promise) {
      const took = () => observer.took(operation, clock.monotonic() - begun);
      result.then(took, took);
    }
    return result;
  };
  const now = () => clock.monotonic();
  return {
    keys: {
      findByHash: (hash, revision) => timed('find_key', now(), keys.findByHash(hash, revision)),
      get: (id) => timed('get_key', now(), keys.get(id)),
      list: (filter, page) => timed('list_keys', now(), keys.list(filter, page)),
      insert: (key, entry) => timed('insert_keys', now(), keys.insert(key, entry)),
      insertMany: (items) => timed('insert_keys', now(), keys.insertMany(items)),
      replace: (...change) => timed('replace_key', now(), keys.replace(...change)),
      changesSince: (revision) => timed('read_changes', now(), keys.changesSince(revision)),
      peekCached: (hash) => keys.peekCached(hash),
      isCurrent: (found) => keys.isCurrent(found),
      holdersOf: (hashes) => keys.holdersOf(hashes),
      due: (kind, until, page) => keys.due(kind, until, page),
      forgetRequestId: (id, requestId) => keys.forgetRequestId(id, requestId),
      writeLastUses: (uses) => keys.writeLastUses(uses),
      count: (time) => keys.count(time),
      revision: () => keys.revision(),
    },
    quota: {
      take: (request) => timed('take_quota', now(), quota.take(request)),
      peek: (request) => quota.peek(request),
    },
    lockout: {
      fail: (ip) => timed('count_failure', now(), lockout.fail(ip)),
      lockedForMs: (ip) => lockout.lockedForMs(ip),
      readLockedForMs: (ip) => lockout.readLockedForMs(ip),
      list: (page) => lockout.list(page),
      count: () => lockout.count(),
      clear: (ip) => lockout.clear(ip),
    },
    ping: () => timed('ping', now(), ping()),
  };
}

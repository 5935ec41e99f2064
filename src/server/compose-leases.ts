import type { Config } from '../config.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { KeyStore, LastUses } from '../keys/ports/key-store.ts';
import { Guards } from '../leases/guards.ts';
import { SyncKeys } from '../leases/sync-keys.ts';
import type { Store, Warn } from '../store/store.ts';

/** Lends leases to guards. `guards` is undefined where the store waits for their leases by itself. */
export function composeLeases(
  config: Config,
  { lending, localUses, lockout, audit, recovery, sharing }: Store,
  { keys, lastUses, clock, warn }: { keys: KeyStore; lastUses: LastUses; clock: Clock; warn: Warn },
) {
  const guards = new Guards(clock, lending.lentBeforeUntil);
  const epoch = () => recovery.epoch;
  const parts = { lending, guards, localUses, keys, lockout, lastUses, audit, clock, epoch, warn };
  const syncKeys = new SyncKeys({ ...parts, lends: config.GUARD_LEASES });
  return { syncKeys, guards: sharing === undefined ? guards : undefined };
}

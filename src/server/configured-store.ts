import { type Config, ConfigError } from '../config.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { openStore } from '../store/open-store.ts';
import type { Store, StoreObserver } from '../store/store.ts';
import { readFileOf } from './setting-files.ts';
import type { Logger } from './telemetry.ts';

/** Opens the store that the settings name; background failures are logged. */
export function openConfiguredStore(
  config: Config,
  clock: Clock,
  logger: Logger,
  broken?: (error: unknown) => void,
  observer?: StoreObserver,
): Promise<Store> {
  return openStore({
    url: config.STORE_URL,
    clock,
    lockout: { maxAttempts: config.RATE_LIMIT_MAX_ATTEMPTS, windowSeconds: config.RATE_LIMIT_WINDOW_SECONDS },
    lease: { pollMs: config.REVISION_POLL_MS, leaseMs: config.REVISION_LEASE_MS, caches: caches(config) },
    chainKey: readChainKey(config),
    warn: (text, err) => logger.warn({ err }, text),
    ...(broken === undefined ? {} : { broken }),
    observer,
  });
}

const MIN_CHAIN_KEY_BYTES = 32;

function readChainKey(config: Config): Uint8Array | undefined {
  const key = readFileOf(config, 'AUDIT_CHAIN_KEY_FILE');
  if (key !== undefined && key.length < MIN_CHAIN_KEY_BYTES) {
    throw new ConfigError(`AUDIT_CHAIN_KEY_FILE: holds fewer than ${MIN_CHAIN_KEY_BYTES} bytes`);
  }
  return key;
}

/** Whether key records are kept in memory. */
export function caches(config: Config): boolean {
  return config.CACHE_TTL_SECONDS > 0 && config.CACHE_MAX_CAPACITY > 0;
}

import { resolve } from 'node:path';
import type { Config } from '../config.ts';
import { ConfigError } from '../config.ts';
import type { ChainLog } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { KeyStore } from '../keys/ports/key-store.ts';
import type { RevocationRecord, Revocations } from '../keys/ports/revocations.ts';
import { isMongodb, openRevocationLog } from '../store/open-store.ts';
import type { RevocationLog } from '../store/revocation-log.ts';
import type { Store } from '../store/store.ts';
import type { Metrics } from './metrics.ts';
import { shownStore } from './neighbour.ts';
import type { Logger } from './telemetry.ts';

const LOOK_EVERY_MS = 5_000;
/** The stores remember the last 1 000 changes: the log must not be further behind than that. */
const COVER_EVERY = 250;

/** Where the log of revocations is; undefined for none. @throws ConfigError */
export function revocationLogOf({ REVOCATION_LOG: given, STORE_URL: url }: Config): string | undefined {
  if (given === 'off') return undefined;
  const embedded = url.startsWith('sqlite:');
  const path = url.replace(/^sqlite:(\/\/)?/, '');
  if (!embedded && given !== '' && !isMongodb(given))
    throw new ConfigError('REVOCATION_LOG: with a store on MongoDB it must be mongodb://… or off');
  const same = embedded ? resolve(given) === resolve(path) : shownStore(given) === shownStore(url);
  if (given !== '' && same)
    throw new ConfigError('REVOCATION_LOG: is the store itself, whose restore would set it back, too');
  return given || (embedded ? `${path}.revocations` : undefined);
}

/** @throws ConfigError, StartError */
export async function openConfiguredLog(
  config: Config,
  { chain }: Pick<Store, 'chain'>,
  clock: Clock,
  logger: Logger,
  metrics?: Pick<Metrics, 'revocationNoted'>,
): Promise<RevocationLog | undefined> {
  const file = revocationLogOf(config);
  if (file === undefined) return undefined;
  const warn = (text: string, err: unknown) => logger.warn({ err }, text);
  const written = (ok: boolean) => metrics?.revocationNoted(ok);
  return openRevocationLog({ file, chain, clock, warn, written });
}

/** For a server; the store is closed where there is no log to be had. @throws ConfigError, StartError */
export async function openRevocations(
  config: Config,
  store: Store,
  clock: Clock,
  logger: Logger,
  metrics: Pick<Metrics, 'revocationNoted'>,
): Promise<NotedRevocations | undefined> {
  try {
    const log = await openConfiguredLog(config, store, clock, logger, metrics);
    return log && new NotedRevocations(log, store.keys, store.chainLog);
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Notes what was narrowed before it is answered, and now and then how far the log has come. */
export class NotedRevocations implements Revocations {
  readonly log: RevocationLog;
  readonly #keys: Pick<KeyStore, 'revision'>;
  readonly #chains: Pick<ChainLog, 'ownHead'>;
  readonly #noting = new Set<Promise<void>>();
  #covered = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(log: RevocationLog, keys: Pick<KeyStore, 'revision'>, chains: Pick<ChainLog, 'ownHead'>) {
    this.log = log;
    this.#keys = keys;
    this.#chains = chains;
  }

  ready(): Promise<void> {
    return this.log.settled();
  }

  async note(record: Omit<RevocationRecord, 'chain'>): Promise<void> {
    const noting = this.#append(record);
    this.#noting.add(noting);
    try {
      await noting;
    } finally {
      this.#noting.delete(noting);
    }
  }

  start(): void {
    this.#timer = setInterval(() => void this.#look().catch(() => {}), LOOK_EVERY_MS).unref();
  }

  /** When no change is under way any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.allSettled(this.#noting);
    try {
      await this.log.settled();
      await this.log.cover(await this.#keys.revision());
    } catch {
      // The next start finds what is missing.
    }
    await this.log.close();
  }

  async #append(record: Omit<RevocationRecord, 'chain'>): Promise<void> {
    const { processId, sequence } = (await this.#chains.ownHead()) ?? {};
    const known = processId !== undefined && sequence !== undefined;
    await this.log.append({ ...record, ...(known ? { chain: { processId, sequence } } : {}) });
  }

  async #look(): Promise<void> {
    await this.log.settled();
    const revision = await this.#keys.revision();
    if (revision < this.#covered + COVER_EVERY) return;
    // Changes that are committed and not noted yet have numbers up to this one, too.
    await Promise.allSettled(this.#noting);
    await this.log.settled();
    await this.log.cover(revision);
    this.#covered = revision;
  }
}

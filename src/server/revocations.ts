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
/** The stores remember the last 1 000 changes, so the log must not fall further behind. */
const COVER_EVERY = 250;

/** The location of the revocation log; undefined when off. @throws ConfigError */
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

/** For a server; closes the store when the log cannot be opened. @throws ConfigError, StartError */
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

/** Records narrowed keys before their calls are answered and, periodically, the revision that the log covers. */
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

  /** Call when no change is in flight any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.allSettled(this.#noting);
    try {
      await this.log.settled();
      await this.log.cover(await this.#keys.revision());
    } catch {
      // The next start adds missing records.
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
    // Committed changes without a record yet may have revisions up to this one.
    await Promise.allSettled(this.#noting);
    await this.log.settled();
    await this.log.cover(revision);
    this.#covered = revision;
  }
}

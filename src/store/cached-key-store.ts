import { LRUCache } from 'lru-cache';
import type { Key } from '../keys/key.ts';
import { type MaybePromise, mapMaybe } from '../keys/maybe-promise.ts';
import type { AuditEntry } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Found, Inserted, KeyChange, KeyStore } from '../keys/ports/key-store.ts';
import type { RotationEffects } from '../keys/rotation.ts';
import type { Changes } from './store.ts';

/** The longest life of a negative entry; any change of a key drops them all. */
const MISS_TTL_MS = 5_000;

export interface CacheSettings {
  /** How long a cached record may be used. */
  readonly ttlMs: number;
  /** Capacity for records; negative entries have the same capacity of their own. */
  readonly maxRecords: number;
}

interface Entry {
  readonly key: Key;
  readonly revision: number;
  readonly readAt: number;
}

interface Flight {
  readonly generation: number;
  readonly found: Promise<Found>;
}

/** The lease of a process that does not share the database. */
const HELD = { holds: true };

/**
 * Caches records, never decisions. Every change through this store raises the generation: the result of a read that was
 * sent before is then neither cached nor shared with later callers, so the very next call sees the change.
 */
export class CachedKeyStore implements KeyStore {
  readonly #inner: KeyStore;
  readonly #clock: Clock;
  readonly #lease: { readonly holds: boolean };
  readonly #ttlMs: number;
  /** By key id, so that a key with two secrets has one record. */
  readonly #records: LRUCache<string, Entry>;
  readonly #idOfHash = new Map<string, string>();
  /** Hashes that belong to no key, or to a retired secret. */
  readonly #misses: LRUCache<string, { readonly found: Found; readonly readAt: number }>;
  readonly #flights = new Map<string, Flight>();
  #generation = 0;
  #hits = 0;
  #readCount = 0;
  /** The cache reflects the store at least up to this revision. */
  #applied = 0;

  /** @param lease omitted where the process does not share the database. */
  constructor(inner: KeyStore, { ttlMs, maxRecords }: CacheSettings, clock: Clock, lease = HELD) {
    this.#inner = inner;
    this.#lease = lease;
    this.#clock = clock;
    this.#ttlMs = ttlMs;
    this.#records = new LRUCache({
      max: maxRecords,
      dispose: ({ key }) => {
        for (const { hash } of key.secrets) this.#idOfHash.delete(hash);
      },
    });
    this.#misses = new LRUCache({ max: maxRecords });
  }

  /** Look-ups since the start that hit the cache, those that missed, and the number of cached records. */
  get counts(): { readonly hits: number; readonly misses: number; readonly records: number } {
    return { hits: this.#hits, misses: this.#readCount, records: this.#records.size };
  }

  findByHash(secretHash: string, minRevision = 0): MaybePromise<Found> {
    const kept = this.#peek(secretHash);
    if (kept !== undefined && kept.revision >= minRevision) {
      this.#hits++;
      return kept;
    }
    this.#readCount++;
    if (minRevision > 0) return this.#read(secretHash, minRevision);
    const flight = this.#flights.get(secretHash);
    const joinable = flight !== undefined && flight.generation === this.#generation;
    if (joinable && this.#lease.holds) return flight.found;
    const found = this.#read(secretHash, 0);
    if (!(found instanceof Promise)) return found;
    const started = { generation: this.#generation, found };
    this.#flights.set(secretHash, started);
    const over = () => {
      if (this.#flights.get(secretHash) === started) this.#flights.delete(secretHash);
    };
    started.found.then(over, over);
    return started.found;
  }

  peekCached(secretHash: string): Found | undefined {
    const kept = this.#peek(secretHash);
    if (kept !== undefined) this.#hits++;
    return kept;
  }

  #peek(secretHash: string): Found | undefined {
    if (!this.#lease.holds) return undefined;
    const now = this.#clock.monotonic();
    const id = this.#idOfHash.get(secretHash);
    const entry = id === undefined ? undefined : this.#records.get(id);
    if (entry !== undefined) {
      const ageMs = now - entry.readAt;
      if (ageMs >= this.#ttlMs) return undefined;
      return { key: entry.key, revision: Math.max(entry.revision, this.#applied), ageMs, fromCache: true };
    }
    const miss = this.#misses.get(secretHash);
    const ageMs = miss === undefined ? Number.POSITIVE_INFINITY : now - miss.readAt;
    return miss !== undefined && ageMs < MISS_TTL_MS ? { ...miss.found, ageMs, fromCache: true } : undefined;
  }

  #read(secretHash: string, minRevision: number): MaybePromise<Found> {
    const generation = this.#generation;
    const readAt = this.#clock.monotonic();
    return mapMaybe(this.#inner.findByHash(secretHash, minRevision), (found) => {
      if (generation === this.#generation && this.#lease.holds) this.#keep(secretHash, found, readAt);
      return found;
    });
  }

  #keep(secretHash: string, found: Found, readAt: number): void {
    const { key, revision } = found;
    if (key === undefined || found.retired === true) {
      this.#misses.set(secretHash, { found, readAt });
      return;
    }
    this.#misses.delete(secretHash);
    this.#records.set(key.id, { key, revision, readAt });
    for (const { hash } of key.secrets) this.#idOfHash.set(hash, key.id);
  }

  /** Applies changes of other processes. Reads sent earlier are neither cached nor shared (docs/design/lease.md D). */
  apply({ revision, keyIds }: Changes): void {
    this.#generation++;
    if (keyIds === undefined) this.#records.clear();
    else for (const keyId of keyIds) this.#records.delete(keyId);
    if (keyIds === undefined || keyIds.length > 0) this.#misses.clear();
    this.#applied = revision;
  }

  /** Whether a result may still be acted on, some time after the look-up. */
  isCurrent(found: Found): boolean {
    return found.fromCache !== true || this.#lease.holds;
  }

  /** Runs after every change, even if its outcome is unknown. */
  #forget(keyId: string): void {
    this.#generation++;
    this.#records.delete(keyId);
    this.#misses.clear();
  }

  async insert(key: Key, entry: AuditEntry): Promise<Inserted> {
    try {
      return await this.#inner.insert(key, entry);
    } finally {
      this.#forget(key.id);
    }
  }

  async insertMany(items: Parameters<KeyStore['insertMany']>[0]): Promise<readonly Inserted[]> {
    try {
      return await this.#inner.insertMany(items);
    } finally {
      for (const { key } of items) this.#forget(key.id);
    }
  }

  async replace(
    key: Key,
    expectedEtag: string,
    change: KeyChange,
    entry: AuditEntry,
    effects?: RotationEffects,
  ): Promise<Key | undefined> {
    try {
      return await this.#inner.replace(key, expectedEtag, change, entry, effects);
    } finally {
      this.#forget(key.id);
    }
  }

  holdersOf: KeyStore['holdersOf'] = (hashes) => this.#inner.holdersOf(hashes);
  due: KeyStore['due'] = (kind, until, page) => this.#inner.due(kind, until, page);
  get: KeyStore['get'] = (id) => this.#inner.get(id);
  list: KeyStore['list'] = (filter, page) => this.#inner.list(filter, page);
  forgetRequestId: KeyStore['forgetRequestId'] = (id, requestId) =>
    this.#inner.forgetRequestId(id, requestId);
  writeLastUses: KeyStore['writeLastUses'] = (uses) => this.#inner.writeLastUses(uses);
  count: KeyStore['count'] = (now) => this.#inner.count(now);
  revision: KeyStore['revision'] = () => this.#inner.revision();
  changesSince: KeyStore['changesSince'] = (revision) => this.#inner.changesSince(revision);
}

import type { Decision } from './check.ts';
import type { FoundSlot, Key, KeyStatus, KeyType, SecretSlot } from './key.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { QuotaRequest, RateLimitState } from './quota.ts';
import type { RotationEffects, RotationStart } from './rotation.ts';

/** Time. Injected everywhere, so that tests own it. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Milliseconds that never go back, from an arbitrary start. */
  monotonic(): number;
}

/** What every event says about the call it records. */
export interface CallOrigin {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly arriveTime: number;
  readonly arriveMonotonic: number;
  /** The calling backend's address, normalised. */
  readonly peerIp: string;
  readonly callerKeyId: string;
  /** The caller's grants: what it may hand on. */
  readonly callerScopes: readonly string[];
  readonly requestId: string;
}

/** What the audit keeps of one call; '' means not known. Times in milliseconds since 1970. */
export interface AuditEntry {
  readonly method: string;
  readonly time: number;
  readonly outcome: string;
  readonly reason: string;
  readonly keyId: string;
  readonly callerKeyId: string;
  readonly keyFingerprint: string;
  readonly requiredScope: string;
  readonly clientIp: string;
  readonly clientIpIsPeer: boolean;
  readonly userAgent: string;
  readonly secretSlot: SecretSlot | '';
  readonly cost: number;
  readonly dryRun: boolean;
  readonly latencyMicros: number;
  readonly requestId: string;
  /** Above 0 in a gap event only: calls refused without an event of their own. */
  readonly refusedCalls: number;
}

/** An entry as the log keeps it. */
export interface AuditRecord extends AuditEntry {
  readonly id: string;
  /** The process that wrote it, and its place there. */
  readonly processId: string;
  readonly sequence: number;
  /** The process that served the call; '' when it is the writing one. */
  readonly servedBy: string;
  /** Over the event and the hash before it, 64 lower-case hex. */
  readonly hash: string;
}

/** Where a process's chain of events ends, as was noted beside the log. */
export interface ChainHead {
  readonly processId: string;
  readonly sequence: number;
  readonly hash: string;
  /** The process has ended cleanly: nothing comes after it. */
  readonly closed: boolean;
  /** Up to where retention has deleted it, and the request_id of the checkpoint that says so. */
  readonly cut?: { readonly sequence: number; readonly hash: string; readonly token: string };
}

/** The beginning of a chain, up to and with this place. */
export interface ChainPrefix {
  readonly processId: string;
  readonly sequence: number;
  readonly hash: string;
  readonly events: number;
}

export interface Page {
  readonly size: number;
  /** Where the page before ended: the adapter's own words, opaque to everybody else. */
  readonly after: readonly (string | number)[] | undefined;
}

export interface Paged<T> {
  readonly items: readonly T[];
  /** To be given as `after`; undefined on the last page. */
  readonly next: readonly (string | number)[] | undefined;
}

export interface AuditFilter {
  readonly keyId?: string;
  readonly callerKeyId?: string;
  readonly method?: string;
  readonly outcome?: string;
  readonly clientIp?: string;
  readonly secretSlot?: SecretSlot;
  /** Inclusive. */
  readonly startTime?: number;
  /** Exclusive. */
  readonly endTime?: number;
}

export interface AuditLog {
  /** Resolves when the event is durable. AUDIT_OVERLOADED when the queue is full, AUDIT_UNAVAILABLE when the log is away. */
  record(entry: AuditEntry): Promise<void>;
  /** Counts a call that was refused without an event; the count becomes one gap event when the log is back. */
  countRefused(calls: number): void;
  /** Newest first. */
  list(filter: AuditFilter, page: Page): Promise<Paged<AuditRecord>>;
  count(): Promise<number>;
  /** Events by outcome from `since` on. */
  countByOutcome(since: number): Promise<ReadonlyMap<string, number>>;
  /** Every event, those of one process together or apart, but in the order of their sequence. */
  readChains(page: Page): Promise<Paged<AuditRecord>>;
  heads(): Promise<readonly ChainHead[]>;
  /** The beginnings of chains that lie before `time`, with about `limit` events in all. */
  expiredPrefixes(time: number, limit: number): Promise<readonly ChainPrefix[]>;
  /** Notes where the chain begins from now on, then deletes what is before. */
  cut(prefix: ChainPrefix, token: string): Promise<void>;
}

/** A read of one record. */
export interface Found {
  readonly key: Key | undefined;
  /** The store's revision that the read is known to reflect. */
  readonly revision: number;
  /** How long ago the store was read, 0 for a read of its own. */
  readonly ageMs: number;
  /** The hash is that of a retired secret of this key. */
  readonly retired?: true;
  /** From memory. */
  readonly fromCache?: true;
}

export interface KeyFilter {
  readonly ownerId?: string;
  readonly type?: KeyType;
  /** Only keys whose status is ACTIVE at this time. */
  readonly activeAt?: number;
}

/** What a revision says about a key. */
export type KeyChange = 'CREATED' | 'UPDATED' | 'REVOKED' | 'EXPIRED' | 'ROTATED';

/** A change that a revision stands for. */
export interface PublishedChange {
  readonly revision: number;
  readonly keyId: string;
  readonly change: KeyChange;
}

/** ROTATION_GRACE: the grace of a rotation ends. ROTATION: its rotate_every has come. EXPIRY: its expire_time. */
export type DueTime = 'ROTATION_GRACE' | 'ROTATION' | 'EXPIRY';

export type Inserted =
  | { readonly outcome: 'INSERTED'; readonly key: Key }
  /** Another key has this id or secret: mint again. */
  | { readonly outcome: 'COLLISION' }
  /** This key was created with the same request_id. */
  | { readonly outcome: 'REQUEST_ID_USED'; readonly key: Key };

export interface SecretOwner {
  readonly keyId: string;
  /** It was the key's once. */
  readonly retired: boolean;
}

export interface KeyStore {
  /** By the hash of a secret. With minRevision, on facts at least that new, else REVISION_NOT_REACHED. */
  findByHash(secretHash: string, minRevision?: number): MaybePromise<Found>;
  /** The same, only where it takes no read; undefined otherwise. */
  peekCached(secretHash: string): Found | undefined;
  /** Whether what was found may still be acted on, some time later. */
  isCurrent(found: Found): boolean;
  get(id: string): Promise<Key | undefined>;
  /** By create_time and id, oldest first. */
  list(filter: KeyFilter, page: Page): Promise<Paged<Key>>;
  /** Stores a new key and its event, both or neither. Sets the key's revision. */
  insert(key: Key, entry: AuditEntry): Promise<Inserted>;
  /** The same of many, each by itself: what collides does not hold up the others. */
  insertMany(
    items: readonly { readonly key: Key; readonly entry: AuditEntry }[],
  ): Promise<readonly Inserted[]>;
  /** The keys that these secrets are or were of; those of nobody are left out. */
  holdersOf(secretHashes: readonly string[]): Promise<ReadonlyMap<string, SecretOwner>>;
  /**
   * Replaces the version that has this etag, with its event and effects, all or none. Undefined when it was another
   * one.
   */
  replace(
    key: Key,
    expectedEtag: string,
    change: KeyChange,
    entry: AuditEntry,
    effects?: RotationEffects,
  ): Promise<Key | undefined>;
  /** Keys that are not revoked and whose time of this kind has come by `until`, earliest first. */
  due(kind: DueTime, until: number, page: Page): Promise<Paged<Key>>;
  /** Lets the request_id of a key be used again. Not a change: no revision, no etag. */
  forgetRequestId(keyId: string, requestId: string): Promise<void>;
  /** Raises last_use_time. Not a change. */
  writeLastUses(uses: ReadonlyMap<string, number>): Promise<void>;
  count(now: number): Promise<KeyCounts>;
  /** The newest revision, read from the store. */
  revision(): Promise<number>;
  /** What was published after a revision, in order; undefined when that is not remembered. */
  changesSince(
    revision: number,
  ): Promise<{ readonly revision: number; readonly changes: readonly PublishedChange[] | undefined }>;
}

export interface KeyCounts {
  readonly byStatus: Readonly<Record<KeyStatus, number>>;
  readonly byType: Readonly<Record<KeyType, number>>;
}

export interface QuotaTaken {
  readonly admitted: boolean;
  readonly states: readonly RateLimitState[];
}

export interface QuotaLimiter {
  /** Takes from every limit or from none, exactly, across processes. */
  take(request: QuotaRequest): MaybePromise<QuotaTaken>;
  /** What take would answer, without taking. */
  peek(request: QuotaRequest): MaybePromise<QuotaTaken>;
}

/** A rotation as it is remembered. */
export interface RotationRecord extends RotationStart {
  readonly oldUses: number;
  readonly lastOldUseTime: number | undefined;
  /** '' when not known. */
  readonly lastOldUseIp: string;
}

/** Uses of one rotation's old secret. */
export interface OldUses {
  readonly uses: number;
  readonly lastTime: number;
  readonly lastIp: string;
}

export interface RotationLog {
  /** Newest first. */
  list(filter: { readonly keyId?: string }, page: Page): Promise<Paged<RotationRecord>>;
  /** Uses of the old secrets of these rotations; those without any are left out. */
  oldUses(rotationIds: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** Adds uses. Not a change. */
  addOldUses(uses: ReadonlyMap<string, OldUses>): Promise<void>;
  /** True once for a rotation, on one process: its grace has ended. */
  noteGraceEnded(rotationId: string): Promise<boolean>;
}

export interface LockedAddress {
  readonly clientIp: string;
  readonly expireTime: number;
}

export interface FailureCounted {
  /** Above 0: it was locked already, so this one was not counted; come back after that long. */
  readonly lockedForMs: number;
  /** Set when this failure locked the address: for so long. */
  readonly locksForMs?: number;
}

export interface Lockout {
  /** How long the address is still locked out, 0 for not at all; undefined when this process must ask. No I/O. */
  lockedForMs(ip: string): number | undefined;
  /** The same, asked of the store. */
  readLockedForMs(ip: string): Promise<number>;
  /** Counts a failure, unless the address is locked already. */
  fail(ip: string): Promise<FailureCounted>;
  /** By address. */
  list(page: Page): Promise<Paged<LockedAddress>>;
  count(): Promise<number>;
  /** False when there was nothing to clear. */
  clear(ip: string): Promise<boolean>;
}

/** Takes note of VALID uses, off the path of the call. */
export interface LastUses {
  note(keyId: string, time: number): void;
}

/** A decision that was made and recorded. */
export interface Decided {
  readonly decision: Decision;
  readonly key: Key | undefined;
  readonly slot: FoundSlot | undefined;
  readonly clientIp: string | undefined;
  readonly dryRun: boolean;
  /** The time it was made at. */
  readonly time: number;
}

/** What is told about what happened, for metrics, logs and alerts. Never slows a call: returns at once. */
export interface Observer {
  decided(decided: Decided): void;
  rotated(key: Key, rotation: RotationStart): void;
  lockedOut(clientIp: string, forMs: number): void;
  /** A calling key's secret that is not the current one was used as a credential. */
  oldCredential(decided: Decided): void;
}

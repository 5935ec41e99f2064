import type { Key, KeyStatus, KeyType } from '../key.ts';
import type { MaybePromise } from '../maybe-promise.ts';
import type { RotationEffects } from '../rotation.ts';
import type { AuditEntry } from './audit.ts';
import type { Page, Paged } from './page.ts';

/** A read of one record. */
export interface Found {
  readonly key: Key | undefined;
  /** The store's revision that the read is known to include. */
  readonly revision: number;
  /** The age of the read from the store, 0 for a fresh read. */
  readonly ageMs: number;
  /** The hash is that of a retired secret of this key. */
  readonly retired?: true;
  /** Served from memory. */
  readonly fromCache?: true;
}

export interface KeyFilter {
  readonly ownerId?: string;
  readonly type?: KeyType;
  /** Only keys that have this status at this time. */
  readonly status?: { readonly is: KeyStatus; readonly at: number };
  /** Only keys whose name or id begins with this. */
  readonly prefix?: string;
}

/** The kind of change behind a revision. */
export type KeyChange = 'CREATED' | 'UPDATED' | 'REVOKED' | 'EXPIRED' | 'ROTATED';

/** The change that a revision stands for. */
export interface PublishedChange {
  readonly revision: number;
  readonly keyId: string;
  readonly change: KeyChange;
}

/** ROTATION_GRACE: the end of a rotation's grace. ROTATION: the end of rotate_every. EXPIRY: expire_time. */
export type DueTime = 'ROTATION_GRACE' | 'ROTATION' | 'EXPIRY';

export type Inserted =
  | { readonly outcome: 'INSERTED'; readonly key: Key }
  /** Another key has this id or secret: mint new ones and retry. */
  | { readonly outcome: 'COLLISION' }
  /** This key was created with the same request_id. */
  | { readonly outcome: 'REQUEST_ID_USED'; readonly key: Key };

export interface SecretOwner {
  readonly keyId: string;
  /** The secret is retired. */
  readonly retired: boolean;
}

export interface KeyStore {
  /** By the hash of a secret. With minRevision, from a read at least that new, else REVISION_NOT_REACHED. */
  findByHash(secretHash: string, minRevision?: number): MaybePromise<Found>;
  /** Like findByHash, but only when no read is needed; undefined otherwise. */
  peekCached(secretHash: string): Found | undefined;
  /** Whether a decision may still rest on an earlier read. */
  isCurrent(found: Found): boolean;
  get(id: string): Promise<Key | undefined>;
  /** By create_time and id, oldest first. */
  list(filter: KeyFilter, page: Page): Promise<Paged<Key>>;
  /** Stores a new key and its event, both or neither. Sets the key's revision. */
  insert(key: Key, entry: AuditEntry): Promise<Inserted>;
  /** Inserts many keys independently: a collision of one does not affect the others. */
  insertMany(
    items: readonly { readonly key: Key; readonly entry: AuditEntry }[],
  ): Promise<readonly Inserted[]>;
  /** The keys that have or had these secrets; unknown secrets are left out. */
  holdersOf(secretHashes: readonly string[]): Promise<ReadonlyMap<string, SecretOwner>>;
  /**
   * Replaces the version with this etag, with its event and effects, all or none. Undefined when the stored etag
   * differs.
   */
  replace(
    key: Key,
    expectedEtag: string,
    change: KeyChange,
    entry: AuditEntry,
    effects?: RotationEffects,
  ): Promise<Key | undefined>;
  /** Keys that are not revoked and whose time of this kind is at or before `until`, earliest first. */
  due(kind: DueTime, until: number, page: Page): Promise<Paged<Key>>;
  /** Lets the request_id of a key be used again. Not a change: no revision, no etag. */
  forgetRequestId(keyId: string, requestId: string): Promise<void>;
  /** Raises last_use_time. Not a change. */
  writeLastUses(uses: ReadonlyMap<string, number>): Promise<void>;
  count(now: number): Promise<KeyCounts>;
  /** The newest revision, read from the store. */
  revision(): Promise<number>;
  /** The changes published after a revision, in order; undefined when they are no longer remembered. */
  changesSince(
    revision: number,
  ): Promise<{ readonly revision: number; readonly changes: readonly PublishedChange[] | undefined }>;
}

export interface KeyCounts {
  readonly byStatus: Readonly<Record<KeyStatus, number>>;
  readonly byType: Readonly<Record<KeyType, number>>;
}

/** Records VALID uses, off the path of the call. */
export interface LastUses {
  note(keyId: string, time: number): void;
}

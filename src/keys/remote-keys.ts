import type { AuditEntry } from './ports/audit.ts';

/** Systems whose tokens and keys can be managed from here, too. */
export type RemoteSystemName = 'gitea' | 'n8n';

/** The login to the other system, kept only for the duration of its call. */
export interface RemoteLogin {
  readonly name: string;
  readonly password: string;
  /** '' without a second factor. Several codes are separated by commas, for a system that accepts each code once. */
  readonly oneTimePassword: string;
}

/** The user that a key acts for. */
export interface RemoteUser {
  /** The user as `list` takes it. */
  readonly user: string;
  /** The other system's id of the user, which survives a rename; undefined when not reported. */
  readonly userId: string | undefined;
}

export interface NewRemoteKey {
  /** The owner; '' is the login's own user. */
  readonly user: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly expireTime?: number | undefined;
}

/** A token or key as the other system reports it. */
export interface SeenRemoteKey {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  /** The last characters of its secret, as many as the other system shows; '' when none are shown. */
  readonly ending: string;
  readonly expireTime?: number | undefined;
}

export interface RemoteList extends RemoteUser {
  /** All keys of the user: one missing here does not exist. */
  readonly keys: readonly SeenRemoteKey[];
  /** Whether this login may also delete keys of other users, and learns whether there was one. */
  readonly othersById: boolean;
}

/** DEAD: the key does not work. UNUSABLE: it exists, but its owner may not use it now. */
export type RemoteVerdict = 'ALIVE' | 'DEAD' | 'UNUSABLE';

export interface RemoteVerification {
  /** UNKNOWN: the other system's answer does not settle it. */
  readonly result: RemoteVerdict | 'UNKNOWN';
  /** The reason for UNUSABLE or UNKNOWN, as a sentence; else ''. */
  readonly why: string;
}

/** A session with another system for one call. Methods throw an ApiError with a REMOTE_ code that names the system. */
export interface RemoteSession {
  create(key: NewRemoteKey): Promise<SeenRemoteKey & RemoteUser & { readonly secret: string }>;
  /** The keys of `user`; '' is the login's own user. */
  list(user: string): Promise<RemoteList>;
  /** @param id as listed. False when the other system reports no such key, which only a list proves. */
  delete(user: string, id: string): Promise<boolean>;
}

/** Another system over its network interface. */
export interface RemoteSystem {
  open(login: RemoteLogin): Promise<RemoteSession>;
  /** Whether the secret works. @param login for a system that answers more to a user; undefined without one. */
  verify(secret: string, login: RemoteLogin | undefined): Promise<RemoteVerification>;
}

/** The record of a key that was created from here. Times in milliseconds since 1970. */
export interface RemoteKeyRecord extends RemoteUser {
  /** The other system's id. */
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly lastEight: string;
  /** SHA-256 of the secret. */
  readonly hash: string;
  readonly createTime: number;
  readonly expireTime: number | undefined;
  readonly deleteTime: number | undefined;
  readonly lastVerifyTime: number | undefined;
  readonly lastVerifyResult: RemoteVerdict | undefined;
}

/** Changes of a record, each with the event of its call: both or neither. */
export type RemoteKeyChange =
  | { readonly deleteTime: number }
  | { readonly lastVerifyTime: number; readonly lastVerifyResult: RemoteVerdict }
  /** Listed there as a key of this user, hence not deleted. */
  | { readonly seenOf: RemoteUser };

/** The records of one system. */
export interface RemoteKeyLog {
  /** Replaces a record with the same id, if there is one. */
  put(record: RemoteKeyRecord, entry: AuditEntry): Promise<void>;
  /** False, without an event, when there is no such record. */
  change(id: string, change: RemoteKeyChange, entry: AuditEntry): Promise<boolean>;
  /** The records with these ids, of any user and deleted or not, in no order. */
  find(ids: readonly string[]): Promise<readonly RemoteKeyRecord[]>;
  findByHash(hash: string): Promise<RemoteKeyRecord | undefined>;
  /** Records of a user, by name or by id, that are not deleted, newest first. */
  list(user: RemoteUser): Promise<readonly RemoteKeyRecord[]>;
}

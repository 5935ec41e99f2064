import type { AuditEntry } from './ports/audit.ts';

/** Systems whose tokens and keys are managed from here, too. */
export type RemoteSystemName = 'gitea' | 'n8n';

/** Who asks the other system. Lives as long as its call. */
export interface RemoteLogin {
  readonly name: string;
  readonly password: string;
  /** '' without a second factor; several are separated by commas, for a system that takes each once. */
  readonly oneTimePassword: string;
}

/** Whom a key acts for. */
export interface RemoteUser {
  /** In the words that a list is asked with. */
  readonly user: string;
  /** The other system's id of the user, which outlives a new name; undefined when it was not told. */
  readonly userId: string | undefined;
}

export interface NewRemoteKey {
  /** Whose: '' is the login's own. */
  readonly user: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly expireTime?: number | undefined;
}

/** A token or key as the other system tells it. */
export interface SeenRemoteKey {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  /** The last characters of its secret, as many as the other system shows; '' when it shows none. */
  readonly ending: string;
  readonly expireTime?: number | undefined;
}

export interface RemoteList extends RemoteUser {
  /** All that the user has: one that is missing here does not exist. */
  readonly keys: readonly SeenRemoteKey[];
  /** Whether this login may end keys of others, too, and is told whether there was one. */
  readonly othersById: boolean;
}

/** DEAD: it does not work. UNUSABLE: it exists, but its owner may not use it now. */
export type RemoteVerdict = 'ALIVE' | 'DEAD' | 'UNUSABLE';

export interface RemoteVerification {
  /** UNKNOWN: what the other system answers does not tell. */
  readonly result: RemoteVerdict | 'UNKNOWN';
  /** Why it is UNUSABLE or UNKNOWN, as a sentence; else ''. */
  readonly why: string;
}

/** One call's dealings with another system. Each throws an ApiError with a REMOTE_ code that names the system. */
export interface RemoteSession {
  create(key: NewRemoteKey): Promise<SeenRemoteKey & RemoteUser & { readonly secret: string }>;
  /** Of `user`; '' is the login's own. */
  list(user: string): Promise<RemoteList>;
  /** @param id as a list tells it. False when the other system says that it has no such key: only a list proves it. */
  delete(user: string, id: string): Promise<boolean>;
}

/** Another system over its network interface. */
export interface RemoteSystem {
  open(login: RemoteLogin): Promise<RemoteSession>;
  /** Whether the secret works. @param login for a system that tells more to a user; undefined without one. */
  verify(secret: string, login: RemoteLogin | undefined): Promise<RemoteVerification>;
}

/** What is kept of a key that was made there from here. Times in milliseconds since 1970. */
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
  /** Seen there as this user's: it is not deleted. */
  | { readonly seenOf: RemoteUser };

/** The records of one system. */
export interface RemoteKeyLog {
  /** In place of one with the same id, if there is one. */
  put(record: RemoteKeyRecord, entry: AuditEntry): Promise<void>;
  /** False, and no event, when there is no such record. */
  change(id: string, change: RemoteKeyChange, entry: AuditEntry): Promise<boolean>;
  /** Those that there are, whosever and deleted or not, in no order. */
  find(ids: readonly string[]): Promise<readonly RemoteKeyRecord[]>;
  findByHash(hash: string): Promise<RemoteKeyRecord | undefined>;
  /** Those of a user, by name or by id, that are not deleted, newest first. */
  list(user: RemoteUser): Promise<readonly RemoteKeyRecord[]>;
}

import type { AuditEntry } from './ports/audit.ts';

/** Systems whose tokens and keys are managed from here, too. */
export type RemoteSystemName = 'gitea' | 'n8n';

/** Who asks the other system. Lives as long as its call. */
export interface RemoteLogin {
  readonly name: string;
  readonly password: string;
  /** '' without a second factor. */
  readonly oneTimePassword: string;
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
  /** '' when it does not tell. */
  readonly lastEight: string;
  readonly expireTime?: number | undefined;
}

/** Another system over its network interface. Each throws an ApiError with a REMOTE_ code that names the system. */
export interface RemoteSystem {
  /** `user` is whom the key acts for, in the words that list is asked with. */
  create(
    login: RemoteLogin,
    key: NewRemoteKey,
  ): Promise<SeenRemoteKey & { readonly user: string; readonly secret: string }>;
  /** All that `user` has; '' is the login's own. */
  list(
    login: RemoteLogin,
    user: string,
  ): Promise<{ readonly user: string; readonly keys: readonly SeenRemoteKey[] }>;
  /** False when it was not there. */
  delete(
    login: RemoteLogin,
    user: string,
    key: string,
  ): Promise<{ readonly user: string; readonly existed: boolean }>;
  /** Whether the secret works. */
  verify(secret: string): Promise<boolean>;
}

/** What is kept of a key that was made there from here. Times in milliseconds since 1970. */
export interface RemoteKeyRecord {
  /** The other system's id. */
  readonly id: string;
  readonly user: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly lastEight: string;
  /** SHA-256 of the secret. */
  readonly hash: string;
  readonly createTime: number;
  readonly expireTime: number | undefined;
  readonly deleteTime: number | undefined;
  readonly lastVerifyTime: number | undefined;
  readonly lastVerifyAlive: boolean | undefined;
}

/** Changes of a record, each with the event of its call: both or neither. */
export type RemoteKeyChange =
  | { readonly deleteTime: number }
  | { readonly lastVerifyTime: number; readonly lastVerifyAlive: boolean };

/** The records of one system. */
export interface RemoteKeyLog {
  /** In place of one with the same id, if there is one. */
  put(record: RemoteKeyRecord, entry: AuditEntry): Promise<void>;
  /** False, and no event, when there is no such record. */
  change(id: string, change: RemoteKeyChange, entry: AuditEntry): Promise<boolean>;
  get(id: string): Promise<RemoteKeyRecord | undefined>;
  findByHash(hash: string): Promise<RemoteKeyRecord | undefined>;
  /** Those of a user that are not deleted, newest first. */
  list(user: string): Promise<readonly RemoteKeyRecord[]>;
}

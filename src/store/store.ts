import type { Chain } from '../audit/chain.ts';
import type { AlertLog, AnomalyLog, SweepLease } from '../keys/notices.ts';
import type { AuditLog, ChainLog } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { KeyStore } from '../keys/ports/key-store.ts';
import type { Lockout, QuotaLimiter } from '../keys/ports/limits.ts';
import type { RotationLog } from '../keys/ports/rotations.ts';
import type { UsageLog } from '../keys/ports/usage.ts';
import type { RemoteKeyLog } from '../keys/remote-keys.ts';

/** What others changed since the last look. */
export interface Changes {
  readonly revision: number;
  /** Undefined when it reaches further back than the store remembers: anything may have changed. */
  readonly keyIds: readonly string[] | undefined;
}

/** For a database that several processes share: a process may use what it has read while it holds the lease. */
export interface Sharing {
  readonly lease: { readonly holds: boolean; readonly ageMs: number };
  /** Looks for changes from now on; resolves after the first look. */
  start(applied: (changes: Changes) => void): Promise<void>;
  /** How far the store's clock is ahead of this process's. */
  readonly skewMs: number;
}

/** What a restore leaves behind: revisions go on where no client has been, and lost changes are to be made again. */
export interface Recovery {
  /** Random; another one after each restore: revisions and cursors of another epoch say nothing. */
  readonly epoch: string;
  /** The store lacks changes after this revision, which are to be made again; undefined for none. */
  behindSince(): Promise<number | undefined>;
  /** Notes that the store holds changes up to `revision` only, and counts on from `next` in a new epoch. */
  begin(revision: number, next: number): Promise<void>;
  /** Every lost change was made again, or is given up. */
  end(): Promise<void>;
}

/** Told how many bytes were copied, of how many. What it throws ends the copy. */
export type CopyTold = (doneBytes: number, totalBytes: number) => void;

export interface CopiedStore {
  /** The store's revision that the copy holds. */
  readonly revision: number;
}

/** What is left of a store that is to be replaced. */
export interface PresentStore {
  readonly revision: number;
  /** The last place of each chain. */
  readonly places: ReadonlyMap<string, number>;
}

/** Another file on its way into the place of an embedded store. Until `put` nothing of the store is touched. */
export interface StoreReplacement {
  /** Where the copy lies, as STORE_URL. */
  readonly copyUrl: string;
  /** Undefined where there is no store, or it cannot be read. */
  present(): PresentStore | undefined;
  /** @throws Error saying why the file cannot be copied, or is no store of this program. */
  copyIn(file: string, told: CopyTold): Promise<void>;
  /** Puts the copy in the store's place; answers where the store before is kept, if there was one. */
  put(keepAs: string): Promise<string | undefined>;
  /** Lets go of the store; what was copied and not put is deleted. */
  close(): Promise<void>;
}

/** Everything a database gives; both adapters fill it, one contract suite judges them. */
export interface Store {
  readonly keys: KeyStore;
  readonly quota: QuotaLimiter;
  readonly lockout: Lockout;
  readonly audit: AuditLog;
  /** The chains that its events form. */
  readonly chainLog: ChainLog;
  /** What links the audit's events: a verifier recomputes with the same. */
  readonly chain: Chain;
  readonly rotations: RotationLog;
  readonly anomalies: AnomalyLog;
  readonly alerts: AlertLog;
  readonly usage: UsageLog;
  readonly giteaTokens: RemoteKeyLog;
  readonly n8nApiKeys: RemoteKeyLog;
  readonly sweepLease: SweepLease;
  readonly recovery: Recovery;
  /** Copies the store as it is now into this file, which is empty; undefined where others do so. */
  readonly copyTo?: ((file: string, told: CopyTold) => Promise<CopiedStore>) | undefined;
  /** Undefined where one process has the database alone. */
  readonly sharing: Sharing | undefined;
  auditBacklog(): AuditBacklog;
  /** Rejects with STORE_UNAVAILABLE when the store cannot be read and written now. */
  ping(): Promise<void>;
  /**
   * Finishes what crashes left behind and, with dropOld, drops counters that are over. Safe from several processes at
   * once.
   */
  sweep(dropOld?: boolean): Promise<void>;
  /** The greatest time that the store knows of, as it was opened; undefined where the clock is held against its own. */
  readonly seenTime?: number | undefined;
  /** Waits for what is under way, then lets go. Nothing may be called afterwards. */
  close(): Promise<void>;
}

export interface LockoutSettings {
  /** Failures within the window that lock an address. */
  readonly maxAttempts: number;
  /** Length of the window and of the lock. */
  readonly windowSeconds: number;
}

export interface LeaseSettings {
  readonly pollMs: number;
  readonly leaseMs: number;
  /** Whether this process keeps records, so that others must wait for it. */
  readonly caches: boolean;
}

/** Events that wait to become durable. */
export interface AuditBacklog {
  readonly waiting: number;
  /** One more than these is refused. */
  readonly limit: number;
  /** Calls that ended without an event of their own since the start: gap events count them. */
  readonly unrecorded: number;
}

/** Told how long was waited for the store, in milliseconds. Never of what memory answered. */
export interface StoreObserver {
  took(operation: StoreOperation, ms: number): void;
  /** A batch of events is durable, with what else was written with it. */
  wroteEvents(events: number, ms: number): void;
}

export const STORE_OPERATIONS = [
  'find_key',
  'get_key',
  'list_keys',
  'insert_keys',
  'replace_key',
  'read_changes',
  'take_quota',
  'count_failure',
  'write_events',
  'wait_for_leases',
  'ping',
] as const;
export type StoreOperation = (typeof STORE_OPERATIONS)[number];

/** Told when background work fails; the text holds no secret. */
export type Warn = (text: string, error: unknown) => void;

export interface StoreOptions {
  readonly url: string;
  readonly clock: Clock;
  readonly lockout: LockoutSettings;
  readonly lease: LeaseSettings;
  /** Makes the audit's hash chain an HMAC. */
  readonly chainKey?: Uint8Array | undefined;
  readonly warn: Warn;
  /** Told when this process can use the store no more, whatever is waited for: only a new process can. */
  readonly broken?: (error: unknown) => void;
  readonly observer?: StoreObserver | undefined;
}

/** One thing that was looked at, and whether it is as it should be. */
export interface Finding {
  readonly what: string;
  readonly ok: boolean;
  /** What is there, or what to do. */
  readonly text: string;
}

/** Why a process cannot start: it ends with this exit code (69 unavailable, 78 configuration) and this one line. */
export class StartError extends Error {
  readonly exitCode: 69 | 78;

  constructor(exitCode: 69 | 78, text: string, cause?: unknown) {
    super(text, { cause });
    this.name = 'StartError';
    this.exitCode = exitCode;
  }
}
